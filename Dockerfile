# syntax=docker/dockerfile:1

# The image of the server and the command line: one static binary, no shell, no package manager, nobody's root.
#
#   docker build -t prism --build-arg VERSION="$(git describe --tags --always --dirty)" \
#     --build-arg COMMIT="$(git rev-parse HEAD)" --build-arg DATE="$(git log -1 --format=%cI)" .
#   docker buildx build --platform linux/amd64,linux/arm64 -t prism .

# The compiler runs on the builder's own platform and compiles for the target: no emulation.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/prism ./cmd/prism

# Certificates of the public authorities, time zones, /tmp, and nothing else.
FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=dev
ARG COMMIT
ARG DATE
LABEL org.opencontainers.image.title="prism" \
      org.opencontainers.image.description="Multicast registry: who is out there, and did every one of them get it?" \
      org.opencontainers.image.source="https://github.com/prism-data-layer/prism" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.created="$DATE"
COPY --from=build /out/prism /usr/local/bin/prism

# A number, because Kubernetes cannot tell from a name that it is not root.
USER 65532:65532

# gRPC; HTTP with JSON, server-sent events, /healthz and /readyz; metrics and profiles for operators alone.
EXPOSE 8980 8981 8982

# No HEALTHCHECK: what the server asks of a caller depends on its configuration, and orchestrators ask /healthz and /readyz
# themselves. The compose file has one for its own set-up.

# Nothing is written: run it with a read-only root. A NATS server inside the process wants a volume for its store_dir.
ENTRYPOINT ["/usr/local/bin/prism"]

# Without a configuration: the namespace "default" in the memory of the process, reachable from outside of the container by
# whoever reaches the container: for a try, not for use.
CMD ["serve", "--insecure", "--grpc-addr", "0.0.0.0:8980", "--http-addr", "0.0.0.0:8981", "--log-format", "json"]
