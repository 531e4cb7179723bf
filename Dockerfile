# The image that the chart runs: the program, and a user that owns nothing. The same distribution twice, so that the C library that
# it was linked with is the one that it finds.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin modelguard

FROM debian:bookworm-slim
COPY --from=build /src/target/release/modelguard /usr/local/bin/modelguard
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/modelguard"]
