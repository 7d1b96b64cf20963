"""OpenAI's completions and chat: the answer is the prompt, a word a token; also streamed as server-sent events."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

from xdserve.router.answers import Body, Endpoint, Failure
from xdserve.router.body import kind_of, parse_object, text_of
from xdserve.router.simulation.base import Simulation

_TOKEN = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")
_EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Task:
    """What a request asks for: for each choice its tokens, cut to the limit."""

    chat: bool
    id: str
    model: str
    choices: tuple[tuple[str, ...], ...]
    finish: tuple[str, ...]
    prompt_tokens: int
    stream: bool
    usage_in_stream: bool

    @property
    def usage(self) -> Body:
        """Tokens taken and given."""
        given = sum(map(len, self.choices))
        taken = self.prompt_tokens
        return {"prompt_tokens": taken, "completion_tokens": given, "total_tokens": taken + given}


def endpoints(simulation: Simulation) -> tuple[Endpoint, ...]:
    """Completions and chat completions; the models are those of v1."""

    async def completions(request: web.Request) -> web.StreamResponse:
        return await answer(request, chat=False)

    async def chat(request: web.Request) -> web.StreamResponse:
        return await answer(request, chat=True)

    async def answer(request: web.Request, *, chat: bool) -> web.StreamResponse:
        task = read(parse_object(await simulation.admission.body(request)), chat=chat)
        if task.stream:
            return await _stream(simulation, request, task)
        async with simulation.working():
            return simulation.reply(_whole(task, simulation.variant))

    return (
        Endpoint("POST", "/v1/completions", "OpenAI: the prompt, also streamed (`stream: true`)", completions),
        Endpoint("POST", "/v1/chat/completions", "OpenAI: the user's last message, also streamed", chat),
    )


# -- The request -----------------------------------------------------------------------------------------------------


def read(content: Body, *, chat: bool) -> Task:
    """What a request asks for; raises Failure (400)."""
    prompts = [_last_message(content)] if chat else _prompts(content)
    limit = _limit(content)
    if content.get("n", 1) != 1:
        raise Failure(400, "n: allowed is 1")
    whole = [_tokens(prompt) for prompt in prompts]
    options = content.get("stream_options") or {}
    return Task(
        chat=chat,
        id=f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
        model=text_of(content.get("model"), "model"),
        choices=tuple(tokens[:limit] for tokens in whole),
        finish=tuple("stop" if limit is None or len(tokens) <= limit else "length" for tokens in whole),
        prompt_tokens=_taken(content) if chat else sum(map(len, whole)),
        stream=content.get("stream") is True,
        usage_in_stream=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _prompts(content: Body) -> list[str]:
    prompt = content.get("prompt")
    if isinstance(prompt, list) and prompt:
        return [text_of(item, f"prompt[{index}]") for index, item in enumerate(prompt)]
    return [text_of(prompt, "prompt")]


def _messages(content: Body) -> list[Body]:
    messages = content.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise Failure(400, f"messages: found {kind_of(messages)}, allowed is a list of one or more messages")
    return messages


def _last_message(content: Body) -> str:
    messages = _messages(content)
    users = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    index = users[-1] if users else len(messages) - 1
    return _text(messages[index].get("content"), f"messages[{index}].content")


def _text(content: object, where: str) -> str:
    """The text of a message: a string, or those parts of a list that are text."""
    if not isinstance(content, list):
        return text_of(content, where)
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text_of(part.get("text"), where) for part in parts)


def _taken(content: Body) -> int:
    texts = [message.get("content") for message in _messages(content)]
    return sum(len(_tokens(text)) for text in texts if isinstance(text, str))


def _limit(content: Body) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        if (limit := content.get(name)) is not None:
            if type(limit) is not int or limit < 0:
                raise Failure(400, f"{name}: allowed is a whole number")
            return limit
    return None


def _tokens(text: str) -> tuple[str, ...]:
    """The words of a text, each with the blanks before it; joined they are the text."""
    return tuple(_TOKEN.findall(text))


# -- The answer ------------------------------------------------------------------------------------------------------


def _head(task: Task, variant: str, *, chunk: bool) -> Body:
    kind = ("chat.completion.chunk" if chunk else "chat.completion") if task.chat else "text_completion"
    return {
        "id": task.id,
        "object": kind,
        "created": int(time.time()),
        "model": task.model,
        "system_fingerprint": variant,
        "variant": variant,
    }


def _whole(task: Task, variant: str) -> Body:
    choices = []
    for index, (tokens, finish) in enumerate(zip(task.choices, task.finish, strict=True)):
        text = "".join(tokens)
        content: Body = {"message": {"role": "assistant", "content": text}} if task.chat else {"text": text}
        choices.append({"index": index, **content, "logprobs": None, "finish_reason": finish})
    return _head(task, variant, chunk=False) | {"choices": choices, "usage": task.usage}


async def _stream(simulation: Simulation, request: web.Request, task: Task) -> web.StreamResponse:
    """Send the parts one by one; the place is held until the last."""
    async with simulation.admission.place():
        response = web.StreamResponse(headers=_EVENTS)
        await response.prepare(request)
        head = _head(task, simulation.variant, chunk=True)
        if task.usage_in_stream:
            head["usage"] = None
        for choice, pauses in _parts(task):
            if pauses:
                await simulation.pause()
            await response.write(_event(head | {"choices": [choice]}))
        if task.usage_in_stream:
            await response.write(_event(head | {"choices": [], "usage": task.usage}))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _parts(task: Task) -> Iterator[tuple[Body, bool]]:
    """The choice of each event, and whether work goes before it."""
    for index, (tokens, finish) in enumerate(zip(task.choices, task.finish, strict=True)):
        if task.chat:
            yield _part(task, index, {"role": "assistant", "content": ""}), False
        for token in tokens:
            yield _part(task, index, {"content": token}), True
        yield _part(task, index, {}, finish), False


def _part(task: Task, index: int, delta: Body, finish: str | None = None) -> Body:
    content: Body = {"delta": delta} if task.chat else {"text": delta.get("content", "")}
    return {"index": index, **content, "logprobs": None, "finish_reason": finish}


def _event(body: Body) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()
