# Every target sets up what it needs: tools/bootstrap makes .venv from the pinned locks, and returns at once
# when neither they nor pyproject.toml have changed since.
# More arguments for the command behind a target: make serve ARGS="--port 9000"

.DEFAULT_GOAL := help
.PHONY: help serve demo test test-boxes lint types layers openapi docs lock image clean ready ready-dev

bin := .venv/bin
compile = $(bin)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	--python-version 3.11 $(ARGS)

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

serve: ready ## start the service on 127.0.0.1:8000
	$(bin)/rewardsvc serve $(ARGS)

demo: ready ## score the example groups against a service of its own
	$(bin)/rewardsvc demo $(ARGS)

test: ready-dev ## run the whole test suite
	$(bin)/python -m pytest $(ARGS)

test-boxes: ready-dev ## the tests of the sandbox and of `code`, which is not registered yet
	REWARDSVC_TEST_BOXES=1 $(bin)/python -m pytest tests/sandbox tests/rewards/code $(ARGS)

lint: ready-dev ## ruff: mistakes and format
	$(bin)/ruff check
	$(bin)/ruff format --check

types: ready-dev ## mypy
	$(bin)/mypy $(ARGS)

layers: ready-dev ## no module imports upward
	$(bin)/lint-imports

openapi: ready ## openapi/openapi.json is what the service serves
	$(bin)/rewardsvc openapi --check openapi/openapi.json

docs: ready-dev ## the generated pages are up to date
	$(bin)/python docs/build.py --check

lock: ready-dev ## write the lock files anew (ARGS=--upgrade for newer versions)
	test -x $(bin)/uv || $(bin)/python -m pip install --quiet 'uv>=0.13'
	$(compile) pyproject.toml --all-extras -o requirements.lock
	$(compile) pyproject.toml --all-extras --group dev -c requirements.lock -o requirements-dev.lock
	$(compile) requirements-build.in -c requirements-dev.lock -o requirements-build.lock

image: ## build the container image, tagged rewardsvc
	docker build --tag rewardsvc $(ARGS) .

clean: ## remove what these targets made, .venv too
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

ready:
	@tools/bootstrap
ready-dev:
	@tools/bootstrap dev
