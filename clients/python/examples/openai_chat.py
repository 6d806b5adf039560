import openai

from earmark import denial_of, wrap

client = wrap(openai.OpenAI(), scopes=["acme/ml"], on_expiry="commit")  # the one line that changes


def answer(prompt: str) -> str:
    try:
        chunks = client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": prompt}], stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    except openai.APIStatusError as error:
        if denial_of(error):
            return "Your budget is used up."
        raise
