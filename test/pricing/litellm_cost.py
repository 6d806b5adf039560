"""Prices the cases on standard input, one JSON object a line, by LiteLLM's cost_per_token, and writes one answer a line.

With "table" as its argument it writes the table that the package carries.
"""

import json
import os
import sys
from datetime import datetime
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

if sys.argv[1:] == ["table"]:
    package = Path(litellm.__file__).parent
    sys.stdout.write((package / "model_prices_and_context_window_backup.json").read_text())
    sys.exit()

from litellm.cost_calculator import cost_per_token  # noqa: E402
from litellm.litellm_core_utils.llm_cost_calc import utils  # noqa: E402
from litellm.types.utils import (  # noqa: E402
    CacheCreationTokenDetails,
    CompletionTokensDetailsWrapper,
    PromptTokensDetailsWrapper,
    Usage,
)

litellm.suppress_debug_info = True


def price(case):
    # cost_per_token takes no time; off-peak hours are those of the case.
    utils.current_billing_time = lambda: datetime.fromisoformat(case["at"].replace("Z", "+00:00"))
    usage = Usage(
        prompt_tokens=case["in"],
        completion_tokens=case["out"],
        total_tokens=case["in"] + case["out"],
        prompt_tokens_details=PromptTokensDetailsWrapper(
            cached_tokens=case["cache_read"],
            cache_creation_tokens=case["cache_write"],
            cache_creation_token_details=CacheCreationTokenDetails(
                ephemeral_5m_input_tokens=case["cache_write_5m"],
                ephemeral_1h_input_tokens=case["cache_write_1h"],
            )
            if case["cache_write_5m"] or case["cache_write_1h"]
            else None,
            audio_tokens=case["audio_in"],
            image_tokens=case["image_in"],
        ),
        completion_tokens_details=CompletionTokensDetailsWrapper(
            reasoning_tokens=case["reasoning"],
            audio_tokens=case["audio_out"],
            image_tokens=case["image_out"],
        ),
    )
    prompt, completion = cost_per_token(
        model=case["key"],
        custom_llm_provider=case["litellm_provider"],
        usage_object=usage,
        service_tier=case["tier"] or None,
    )
    return {"usd": prompt + completion}


for line in sys.stdin:
    try:
        answer = price(json.loads(line))
    except Exception as error:  # an answer, whatever it is
        answer = {"error": f"{type(error).__name__}: {error}"[:200]}
    sys.stdout.write(json.dumps(answer) + "\n")
