# make demo    ports the demo's two SavedModels, compares them with TensorFlow and runs queries
# make test    sets up the environment and runs the tests        make lint    ruff and pyright
# make test-without-tensorflow  the tests without TensorFlow and without native code
# make test-older-processors    the numerical tests with the instruction sets of older processors
# make test-sanitized           the native code's tests with gcc's sanitizers
# make corpus  ports every SavedModel in $(TORCH_TOWERS_CORPUS) and prints a table
# make fuzz    coverage-guided fuzzing of the readers, for an hour (FUZZ_SECONDS=60: a minute)
# make bench   compares speed with TensorFlow on every tower that the tests build, idle and busy, and with ONNX Runtime
# make bench-device  the towers on a GPU: whole, encoder alone, compiled, and the device's limits
# make bench-bulk  the commands on a million generated rows (ROWS=20000: two minutes), killed and resumed: speed, memory, completeness

CC := gcc
PYTHON ?= python3.11
VENV ?= .venv
RUN := $(VENV)/bin/python
export TORCH_TOWERS_CORPUS ?= $(wildcard ../shared/savedmodels)

.PHONY: demo test test-without-tensorflow test-older-processors test-sanitized lint fuzz corpus bench bench-device bench-bulk docs clean

$(VENV)/.installed: pyproject.toml constraints.txt requirements-parity.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -c constraints.txt torch
	$(RUN) -m pip install -q -c constraints.txt -r requirements-parity.txt -e ".[dev]"
	touch $@

demo: $(VENV)/.installed
	$(RUN) examples/packages/demo.py

test: $(VENV)/.installed
	$(RUN) -m pytest -n 2 --dist loadfile

.venv-runtime/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-runtime
	.venv-runtime/bin/python -m pip install -q -c constraints.txt torch
	.venv-runtime/bin/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

test-without-tensorflow: .venv-runtime/.installed
	! .venv-runtime/bin/python -c "import tensorflow" 2>/dev/null
	TORCH_TOWERS_NATIVE=0 .venv-runtime/bin/python -m pytest -n 2 --dist loadfile

NUMBERS := $(addprefix tests/torch_towers/,layers ops kernels search program test_tower.py)

test-older-processors: .venv-runtime/.installed
	TORCH_TOWERS_NATIVE=avx2 ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX2 \
		.venv-runtime/bin/python -m pytest -n 2 --dist loadfile $(NUMBERS)
	TORCH_TOWERS_NATIVE=c ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE \
		.venv-runtime/bin/python -m pytest -n 2 --dist loadfile $(NUMBERS)

# The native code under AddressSanitizer and UndefinedBehaviorSanitizer: an out-of-bounds read fails the tests.
# Python itself is not instrumented, so the sanitizer libraries are preloaded; leak detection is off, since Python keeps memory.
SANITIZER = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)
test-sanitized: .venv-runtime/.installed
	@for library in $(SANITIZER); do test -f $$library || { echo "$$library: gcc's sanitizers are needed here (libasan, libubsan)"; exit 1; }; done
	CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
		.venv-runtime/bin/python setup.py -q build_ext --force --build-lib build/sanitized --build-temp build/sanitized/temp
	LD_PRELOAD="$(SANITIZER)" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc OMP_NUM_THREADS=1 \
		.venv-runtime/bin/python -m pytest -s -p tests.sanitized $(addprefix tests/torch_towers/kernels/test_,native.py top_k.py small_layers.py)

lint: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

FUZZ_SECONDS ?= 3600
fuzz: $(VENV)/.installed
	$(RUN) -m pip install -q -c constraints.txt -r requirements-fuzz.txt
	$(RUN) -m tests.fuzz --seconds $(FUZZ_SECONDS)

corpus: $(VENV)/.installed
	$(RUN) -m tests.corpus.table

bench: $(VENV)/.installed
	$(RUN) -m pip install -q -c constraints.txt -r requirements-benchmarks.txt
	$(RUN) -m benchmarks.general --json general.json
	$(RUN) -m benchmarks.general --keep --busy --rounds 2 --json busy.json
	$(RUN) -m benchmarks.run --json benchmarks.json
	$(RUN) -m benchmarks.startup --json startup.json
	$(RUN) -m benchmarks.search --json search.json

bench-device: $(VENV)/.installed
	$(RUN) -m benchmarks.device --compiled --dtypes float32 bfloat16 float16 --json device.json

docs: $(VENV)/.installed
	$(RUN) -m porting.ops_table > docs/ops.md
	$(RUN) -m porting.layers_table > docs/layers.md

ROWS ?= 1000000
bench-bulk: $(VENV)/.installed
	$(RUN) -m benchmarks.bulk --rows $(ROWS)

clean:
	rm -rf $(VENV) .venv-runtime build *.egg-info
