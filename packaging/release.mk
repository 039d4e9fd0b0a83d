# Targets that build what is released, all reproducible: binaries, image, packages, SBOMs, manifests, checksums. docs/packaging.md
# explains them. Included by the Makefile.

DIST      ?= dist
ARCHS     ?= amd64 arm64
# The time of the commit, for all files.
EPOCH      = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))
# PEM file of the ed25519 key that signs the checksums.
SIGNING_KEY ?=
PACKAGING := $(GO) -C packaging
# An archive that does not depend on the machine.
TAR        = tar --sort=name --mtime=@$(EPOCH) --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=ustar
NAME       = lpfileshare_$(VERSION)

.PHONY: release
release: ## Build binaries, image, packages, SBOMs, manifests and SHA256SUMS into dist/; SIGNING_KEY=key.pem signs
	rm -rf $(DIST)
	$(MAKE) binaries image packages sbom manifests DIST=$(DIST)
	for a in $(ARCHS); do $(TAR) --transform 's,^linux_,$(NAME)_linux_,' -C $(DIST) -I 'gzip -9n' -cf $(DIST)/$(NAME)_linux_$$a.tar.gz linux_$$a || exit 1; done
	$(TAR) -C $(DIST)/image -cf $(DIST)/$(NAME)_image.tar .
	cd $(DIST) && sha256sum lpfileshare* >SHA256SUMS
	@if [ -n "$(SIGNING_KEY)" ]; then \
		openssl pkeyutl -sign -rawin -inkey "$(SIGNING_KEY)" -in $(DIST)/SHA256SUMS -out $(DIST)/SHA256SUMS.sig; \
	else \
		echo "release: SHA256SUMS is not signed; set SIGNING_KEY to the PEM file of an ed25519 key"; \
	fi

.PHONY: binaries
binaries: ## Build static binaries for linux, amd64 and arm64, into dist/
	for a in $(ARCHS); do \
		mkdir -p $(DIST)/linux_$$a && \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$a $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(DIST)/linux_$$a/lpfileshare-server ./cmd/server && \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$a $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(DIST)/linux_$$a/lpfileshare ./cmd/client && \
		cp LICENSE $(DIST)/linux_$$a/ || exit 1; \
	done

.PHONY: image
image: binaries ## Write the container image of both architectures as an OCI layout to dist/image
	$(PACKAGING) run ./image -version $(VERSION) -revision "$(REVISION)" -created $(EPOCH) -license $(CURDIR)/LICENSE \
		-archs '$(ARCHS)' -binaries $(abspath $(DIST)) -out $(abspath $(DIST))/image

.PHONY: packages
packages: binaries ## Build deb and rpm packages into dist/
	gzip -9n <docs/lpfileshare.1 >$(DIST)/lpfileshare.1.gz
	for a in $(ARCHS); do for kind in deb rpm; do \
		ARCH=$$a VERSION=$(patsubst v%,%,$(VERSION)) BINARIES=$(DIST)/linux_$$a MANUAL=$(DIST)/lpfileshare.1.gz SOURCE_DATE_EPOCH=$(EPOCH) \
		$(GO) tool -modfile=packaging/go.mod nfpm package -f packaging/nfpm.yaml -p $$kind -t $(DIST)/$(NAME)_linux_$$a.$$kind || exit 1; \
	done; done
	rm $(DIST)/lpfileshare.1.gz

.PHONY: sbom
sbom: binaries ## Write the modules of each program, in CycloneDX, into dist/
	for p in lpfileshare lpfileshare-server; do \
		$(PACKAGING) run ./sbom -version $(VERSION) -out $(abspath $(DIST))/$${p}_$(VERSION).cdx.json $(abspath $(DIST))/linux_$(firstword $(ARCHS))/$$p || exit 1; \
	done

.PHONY: manifests
manifests: ## Write the Kubernetes manifests of this version into dist/
	mkdir -p $(DIST)
	$(TAR) --transform 's,^,$(NAME)_,' -C packaging -I 'gzip -9n' -cf $(DIST)/$(NAME)_kubernetes.tar.gz kubernetes monitoring

.PHONY: test-packaging
test-packaging: ## Build a release twice, compare, and run its image; check packages, unit and manifests; needs root, bwrap, rpm
	$(PACKAGING) vet ./...
	$(PACKAGING) test -count=1 -v -timeout 40m ./...
