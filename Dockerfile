# The page's third-party parts
FROM node:22-bookworm-slim AS web
WORKDIR /web
COPY api/web/package.json api/web/package-lock.json ./
RUN npm ci --no-audit --no-fund

# The binary. RocksDB wants libclang, librdkafka zlib.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends clang libclang-dev pkg-config zlib1g-dev make g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
COPY --from=web /web/node_modules api/web/node_modules
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --release --locked --bin millpond \
    && install -D /target/release/millpond /out/millpond

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libstdc++6 zlib1g libgssapi-krb5-2 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/millpond --create-home millpond
COPY --from=build /out/millpond /usr/local/bin/millpond
COPY config /etc/millpond
USER millpond
VOLUME /var/lib/millpond
EXPOSE 9092 8080 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["millpond", "topics", "list", "--http", "127.0.0.1:8080"]
# SIGTERM, docker's own, stops it cleanly
ENTRYPOINT ["millpond"]
CMD ["serve", "--config", "/etc/millpond/docker.toml"]
