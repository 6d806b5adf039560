# syntax=docker/dockerfile:1

FROM golang:1.26.8-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /earmark ./cmd/earmark

# Nothing but the program, the certificates it checks others by, and the time zones that windows are in.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/go/lib/time/zoneinfo.zip /zoneinfo.zip
COPY --from=build /earmark /earmark
ENV ZONEINFO=/zoneinfo.zip
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/earmark"]
CMD ["serve"]
