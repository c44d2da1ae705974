"""ONNX Runtime's logits of our models: a prompt, then one token at a time over the caches it gives
(all of them one at a time where the model is a decode step).

Input: {"jobs": [{"model", "ids", "prompt", "out"}]}; the logits [tokens, vocab] go to "out" (.npy).
Output: {"checked": [...]} in the same order: what onnx's checker and shape inference say ("" = good).
"""
import json
import sys

import numpy
import onnx
import onnxruntime


def check(path):
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # whatever it is, it is the answer
        return str(error)[:500]
    return ""


def present(past):
    return "n" + past if "_lat_" in past else past.replace("past_key_values", "present")


def run(job):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Else blocks of integers in the plain profile are computed with 8-bit activations.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(job["model"], options, ["CPUExecutionProvider"])
    inputs = {value.name: value for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    caches = {name: numpy.zeros((1, value.shape[1], 0, value.shape[3]), numpy.float32)
              for name, value in inputs.items() if len(value.shape) == 4}
    ids, past, rows = job["ids"], 0, []
    step = inputs["input_ids"].shape[1] == 1
    sizes = [1] * len(ids) if step else [job["prompt"]] + [1] * (len(ids) - job["prompt"])
    for size in sizes:
        begin = past if caches else 0
        feeds = dict(caches, input_ids=numpy.array([ids[begin:past + size]], numpy.int64))
        if "attention_mask" in inputs:
            feeds["attention_mask"] = numpy.ones((1, past + size), numpy.int64)
        if "position_ids" in inputs:
            feeds["position_ids"] = numpy.arange(past, past + size, dtype=numpy.int64)[None]
        results = dict(zip(names, session.run(names, feeds)))
        rows.append(results["logits"][0][-size:])
        caches = {name: results[present(name)] for name in caches}
        past += size
    numpy.save(job["out"], numpy.concatenate(rows).astype(numpy.float32))


request = json.load(open(sys.argv[1]))
checked = []
for item in request["jobs"]:
    checked.append(check(item["model"]))
    run(item)
json.dump({"checked": checked}, open(sys.argv[2], "w"))
