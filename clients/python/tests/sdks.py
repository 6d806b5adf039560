"""Calls of the SDKs of providers, which return the text of the answer. Each SDK has a synchronous and an asynchronous client."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
from google import genai

from earmark import wrap

MESSAGES: list[Any] = [{"role": "user", "content": "Count."}]
Options = dict[str, Any]


def run_openai(url: str, options: Options, stream: bool, retries: int = 2, **more: Any) -> str:
    with wrap(openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=retries), **options) as client:
        if not stream:
            return str(client.chat.completions.create(model="gpt-5", messages=MESSAGES, **more).choices[0].message.content)
        return "".join(_text_of(chunk) for chunk in client.chat.completions.create(model="gpt-5", messages=MESSAGES, stream=True, **more))


def run_openai_async(url: str, options: Options, stream: bool, retries: int = 2, **more: Any) -> str:
    async def call() -> str:
        async with wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=retries), **options) as client:
            if not stream:
                return str((await client.chat.completions.create(model="gpt-5", messages=MESSAGES, **more)).choices[0].message.content)
            chunks = await client.chat.completions.create(model="gpt-5", messages=MESSAGES, stream=True, **more)
            return "".join([_text_of(chunk) async for chunk in chunks])

    return asyncio.run(call())


def _text_of(chunk: Any) -> str:
    assert chunk.choices, "the caller did not ask for the chunk without choices"
    return chunk.choices[0].delta.content or ""


def run_responses(url: str, options: Options, stream: bool, retries: int = 2) -> str:
    with wrap(openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=retries), **options) as client:
        if not stream:
            return str(client.responses.create(model="gpt-5", input="Count.").output_text)
        events = client.responses.create(model="gpt-5", input="Count.", stream=True)
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def run_responses_async(url: str, options: Options, stream: bool, retries: int = 2) -> str:
    async def call() -> str:
        async with wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=retries), **options) as client:
            if not stream:
                return str((await client.responses.create(model="gpt-5", input="Count.")).output_text)
            events = await client.responses.create(model="gpt-5", input="Count.", stream=True)
            return "".join([event.delta async for event in events if event.type == "response.output_text.delta"])

    return asyncio.run(call())


def run_anthropic(url: str, options: Options, stream: bool, retries: int = 2) -> str:
    with wrap(anthropic.Anthropic(api_key="k", base_url=url, max_retries=retries), **options) as client:
        if not stream:
            return str(client.messages.create(model="claude", max_tokens=50, messages=MESSAGES).content[0].text)
        with client.messages.stream(model="claude", max_tokens=50, messages=MESSAGES) as events:
            return "".join(events.text_stream)


def run_anthropic_async(url: str, options: Options, stream: bool, retries: int = 2) -> str:
    async def call() -> str:
        async with wrap(anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=retries), **options) as client:
            if not stream:
                message = await client.messages.create(model="claude", max_tokens=50, messages=MESSAGES)
                return str(message.content[0].text)
            async with client.messages.stream(model="claude", max_tokens=50, messages=MESSAGES) as events:
                return "".join([text async for text in events.text_stream])

    return asyncio.run(call())


def _google(url: str, options: Options, retries: int) -> genai.Client:
    retry = genai.types.HttpRetryOptions(attempts=retries + 1, initial_delay=0.01, max_delay=0.01)
    http = genai.types.HttpOptions(base_url=url, retry_options=retry if retries else None)
    return wrap(genai.Client(api_key="k", http_options=http), **options)


def run_google(url: str, options: Options, stream: bool, retries: int = 0) -> str:
    with _google(url, options, retries) as client:
        if not stream:
            return str(client.models.generate_content(model="gemini-3", contents="Count.").text)
        return "".join(str(part.text) for part in client.models.generate_content_stream(model="gemini-3", contents="Count."))


def run_google_async(url: str, options: Options, stream: bool, retries: int = 0) -> str:
    async def call() -> str:
        async with _google(url, options, retries).aio as client:
            if not stream:
                return str((await client.models.generate_content(model="gemini-3", contents="Count.")).text)
            parts = await client.models.generate_content_stream(model="gemini-3", contents="Count.")
            return "".join([str(part.text) async for part in parts])

    return asyncio.run(call())


CALLS: dict[str, Any] = {
    "openai": run_openai,
    "openai-async": run_openai_async,
    "openai-responses": run_responses,
    "openai-responses-async": run_responses_async,
    "anthropic": run_anthropic,
    "anthropic-async": run_anthropic_async,
    "google-genai": run_google,
    "google-genai-async": run_google_async,
}
