# The commands of this repository. `make help` lists them.
.DEFAULT_GOAL := help
PROFILE ?= quick
CARGO ?= cargo
export CARGO_TERM_PROGRESS_WHEN ?= auto

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build all programs (profile: quick)
	$(CARGO) build --profile $(PROFILE) --workspace --bins

.PHONY: demo
demo: ## Start the mesh with bookinfo on this machine and walk a tour on real traffic
	@scripts/demo $(PROFILE)

.PHONY: test
test: ## Run every tier of tests that this machine allows; with CI=true, all of them
	@scripts/test $(PROFILE)

.PHONY: lint
lint: ## Format, clippy, docs, licences, import directions
	@scripts/lint

.PHONY: bench
bench: ## Measure against Envoy in the same run and print the ratios
	@scripts/bench

.PHONY: soak
soak: ## Hold a load of a million requests while everything around it changes
	@scripts/soak

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: docs
docs: ## Build the API documentation
	$(CARGO) doc --workspace --no-deps --document-private-items

.PHONY: bless
bless: ## Rewrite the golden files from what the code does now
	BLESS=1 $(CARGO) test --profile $(PROFILE) --workspace golden
