# Two images from one file: kvctrld (docker build .) and the front before it
# (docker build --target front .). BuildKit and the classic builder both do.
#
# Behind a proxy: --build-arg HTTP_PROXY=… --build-arg HTTPS_PROXY=… --build-arg GOPROXY=….
# Where no image registry can be reached deploy/stand-in-images.sh makes the two images
# that this begins with.

FROM golang:1.26-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libzmq3-dev pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ARG GOPROXY
ENV GOTOOLCHAIN=local
# The modules come first: they stay in the cache while only our code changes.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=0.1.0-dev
ARG COMMIT=unknown
RUN go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /kvctrld ./cmd/kvctrld

# What both images have.
FROM debian:bookworm-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends libzmq5 ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /kvctrld /usr/local/bin/kvctrld

# The front: Debian's HAProxy. kvctrld is in it for the health check, and for people.
FROM base AS front
RUN apt-get update && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
COPY deploy/haproxy.cfg /etc/haproxy/haproxy.cfg
USER haproxy
EXPOSE 9000 8300 9001 8400 8082
# Through the front to some replica. It asks for a leader, too: without one it reads
# unhealthy while it still answers lookups.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["kvctrld", "status", "--timeout", "3s"]
# SIGTERM would break off what is under way; SIGUSR1 lets it end.
STOPSIGNAL SIGUSR1
ENTRYPOINT ["haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"]

FROM base AS kvctrld
# A fixed number, so that a volume keeps its owner from image to image.
RUN groupadd --gid 10001 kvctrl && useradd --uid 10001 --gid kvctrl --no-create-home --home-dir /data --shell /usr/sbin/nologin kvctrl && install -d -m 0700 -o kvctrl -g kvctrl /data
USER kvctrl
WORKDIR /data
VOLUME /data
ENV KVCTRL_DATA_DIR=/data
# REST; PULL, and PULL of LMCache before 0.3.12; ROUTER; heartbeats; other replicas
EXPOSE 9000 8300 9001 8400 8082 9400
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["kvctrld", "status", "--timeout", "3s"]
ENTRYPOINT ["kvctrld"]
CMD ["serve"]
