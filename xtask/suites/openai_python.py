"""Drives the mock model server with the vendor's own client: `openai_python.py BASE_URL`.

The server plays openai_python.json. Each check prints `ok NAME` or `FAILED NAME: why`; one failure makes the exit
status 1. The client parses every answer into its own types, so a check also fails where the mock's wire form is off.
"""
import json
import sys
import traceback

import openai

MODEL = "mock"
PROMPT = "do the work"
TEXT = "Done: zwei Aufrufe, größer als früher."
PATCH = "*** Begin Patch\n*** Add File: a\n+ä\n*** End Patch\n"

client = openai.OpenAI(base_url=sys.argv[1], api_key="not-a-key", max_retries=0, timeout=20)
checks = []


def check(function):
    checks.append(function)
    return function


def equal(got, want):
    if got != want:
        raise AssertionError(f"{got!r} is not {want!r}")


def only(items, kind):
    found = [item for item in items if item.type == kind]
    equal(len(found), 1)
    return found[0]


def answer(item, output):
    """The next request's items: the call as it came, and what it gave."""
    return [item.model_dump(exclude_none=True), {"type": item.type + "_output", "call_id": item.call_id, "output": output}]


def play(respond):
    """Plays the whole script, with the history carried by the client; returns the last response."""
    history = [{"role": "user", "content": PROMPT}]
    call = only(respond(history).output, "function_call")
    equal(call.name, "exec_command")
    equal(json.loads(call.arguments), {"cmd": "echo grüße"})
    history += answer(call, "grüße\n")
    call = only(respond(history).output, "custom_tool_call")
    equal((call.name, call.input), ("apply_patch", PATCH))
    history += answer(call, "Done!")
    last = respond(history)
    equal(last.output_text, TEXT)
    return last


@check
def responses_plays_the_script():
    last = play(lambda history: client.responses.create(model=MODEL, input=history, store=False))
    equal(last.status, "completed")
    equal(last.usage.total_tokens, last.usage.input_tokens + last.usage.output_tokens)


@check
def responses_stream_plays_the_script():
    def respond(history):
        completed, numbers = None, []
        with client.responses.create(model=MODEL, input=history, store=False, stream=True) as stream:
            for event in stream:
                numbers.append(event.sequence_number)
                if event.type == "response.completed":
                    completed = event.response
        equal(numbers, sorted(set(numbers)))
        return completed

    play(respond)


@check
def responses_stream_sends_text_in_pieces():
    deltas, done, types = [], [], []
    history = [{"role": "user", "content": PROMPT}]
    for kind in ("function_call", "custom_tool_call"):
        history += answer(only(client.responses.create(model=MODEL, input=history).output, kind), "ok")
    with client.responses.create(model=MODEL, input=history, stream=True) as stream:
        for event in stream:
            types.append(event.type)
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
            elif event.type == "response.output_text.done":
                done.append(event.text)
    equal("".join(deltas), TEXT)
    equal(done, [TEXT])
    equal((types[0], types[-1]), ("response.created", "response.completed"))


@check
def responses_helper_accumulates_the_stream():
    with client.responses.stream(model=MODEL, input=[{"role": "user", "content": PROMPT}]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    equal(json.loads(only(final.output, "function_call").arguments), {"cmd": "echo grüße"})


@check
def responses_remembers_by_previous_id():
    first = client.responses.create(model=MODEL, input=PROMPT)
    call = only(first.output, "function_call")
    second = client.responses.create(model=MODEL, previous_response_id=first.id, input=answer(call, "ok")[1:])
    equal(only(second.output, "custom_tool_call").input, PATCH)


TOOLS = [{"type": "function", "function": {"name": "exec_command", "parameters": {"type": "object"}}}]


@check
def chat_completions_answers_with_a_tool_call():
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": PROMPT}], tools=TOOLS)
    equal(reply.choices[0].finish_reason, "tool_calls")
    call = reply.choices[0].message.tool_calls[0]
    equal((call.function.name, json.loads(call.function.arguments)), ("exec_command", {"cmd": "echo grüße"}))


@check
def chat_completions_stream_builds_the_same_call():
    arguments, names, reasons = "", [], []
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": PROMPT}], tools=TOOLS, stream=True
    )
    for chunk in stream:
        for choice in chunk.choices:
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for call in choice.delta.tool_calls or []:
                names += [call.function.name] if call.function.name else []
                arguments += call.function.arguments or ""
    equal((names, json.loads(arguments), reasons), (["exec_command"], {"cmd": "echo grüße"}, ["tool_calls"]))


def scripted(name, **options):
    """A client of another script of the server; each of its faults happens once."""
    return client.with_options(base_url=sys.argv[1].replace("/v1", f"/{name}/v1"), **options)


def raises(kind, function):
    try:
        function()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


@check
def a_rate_limit_is_understood_and_then_over():
    limited = scripted("limited")
    error = raises(openai.RateLimitError, lambda: limited.responses.create(model=MODEL, input=PROMPT))
    equal((error.status_code, error.code), (429, "rate_limit_exceeded"))
    equal(limited.responses.create(model=MODEL, input=PROMPT).output_text, "ok")


@check
def a_refusal_is_understood():
    refused = scripted("refused", max_retries=2)
    error = raises(openai.BadRequestError, lambda: refused.responses.create(model=MODEL, input=PROMPT))
    equal((error.code, error.param), ("context_length_exceeded", "input"))


@check
def an_unpaired_call_is_refused():
    call = {"type": "function_call", "call_id": "call_t0_0", "name": "f", "arguments": "{}"}
    error = raises(openai.BadRequestError, lambda: client.responses.create(model=MODEL, input=[call]))
    equal("no tool output found for call call_t0_0" in str(error), True)


@check
def an_error_in_a_stream_is_understood():
    def stream():
        return list(scripted("broken").responses.create(model=MODEL, input=PROMPT, stream=True))

    last = stream()[-1]
    equal((last.type, last.code, last.message), ("error", "server_error", "oops"))
    # The nested form is the one that the client raises.
    error = raises(openai.APIError, stream)
    equal((error.message, error.code), ("oops", "server_error"))


@check
def faults_of_the_wire_change_nothing():
    split = scripted("split")
    for _ in range(4):
        stream = split.responses.create(model=MODEL, input=PROMPT, stream=True)
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        equal("".join(deltas), "größer 😀")


def main():
    failed = 0
    for function in checks:
        try:
            function()
            print(f"ok {function.__name__}", flush=True)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            print(f"FAILED {function.__name__}: {type(error).__name__}: {str(error).splitlines()[:1]}", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed", flush=True)
    sys.exit(failed > 0)


main()
