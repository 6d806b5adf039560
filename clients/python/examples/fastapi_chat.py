from collections.abc import AsyncIterator

import openai
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from earmark import Earmark, denial_of, scope_of, wrap

earmark = Earmark()
provider = openai.AsyncOpenAI()
app = FastAPI()


class Question(BaseModel):
    prompt: str


@app.post("/users/{user}/chat", response_model=None)
async def chat(user: str, question: Question) -> Response:
    client = wrap(provider, earmark=earmark, scopes=[scope_of("acme", user)], on_expiry="commit")
    messages = [{"role": "user", "content": question.prompt}]
    try:
        chunks = await client.chat.completions.create(model="gpt-5", messages=messages, stream=True)
    except openai.APIStatusError as error:
        denial = denial_of(error)
        if denial is None:
            raise
        return JSONResponse({"error": "Your budget is used up.", "retryable": denial.retryable}, status_code=402)

    async def text() -> AsyncIterator[str]:
        async with chunks:  # a reader who leaves stops the model
            async for chunk in chunks:
                yield chunk.choices[0].delta.content or ""

    return StreamingResponse(text(), media_type="text/plain")
