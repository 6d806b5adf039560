# syntax=docker/dockerfile:1

FROM golang:1.26.8-alpine AS go

FROM go AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /earmark ./cmd/earmark

# Nothing but the program, the certificates it checks others by, and the time zones that windows are in.
FROM scratch AS base
COPY --from=go /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=go /usr/local/go/lib/time/zoneinfo.zip /zoneinfo.zip
ENV ZONEINFO=/zoneinfo.zip
# A container's own loopback is out of reach for everybody else. Every call needs a key.
ENV EARMARK_ADDR=0.0.0.0:8080
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/earmark"]
CMD ["serve"]

# For a release: the program as goreleaser built it.
FROM base AS release
ARG TARGETPLATFORM
COPY ${TARGETPLATFORM}/earmark /earmark

# What `docker build` makes: the program from this source.
FROM base
COPY --from=build /earmark /earmark
