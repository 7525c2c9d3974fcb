//! The command-line options for encoding and compression.

use clap::{Args, ValueEnum};
use shardkeeper::Builder;
use shardkeeper::config::{Compression, Encoding};

#[derive(Args)]
pub(crate) struct Wire {
    /// How payloads are compressed.
    #[arg(long, value_enum, default_value_t = CompressionName::ZlibStream)]
    compression: CompressionName,
    /// The encoding of payloads.
    #[arg(long, value_enum, default_value_t = EncodingName::Json)]
    encoding: EncodingName,
}

#[derive(Clone, Copy, ValueEnum)]
enum CompressionName {
    None,
    ZlibStream,
    ZstdStream,
    Payload,
}

#[derive(Clone, Copy, ValueEnum)]
enum EncodingName {
    Json,
    Etf,
}

impl Wire {
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        let compression = match self.compression {
            CompressionName::None => Compression::None,
            CompressionName::ZlibStream => Compression::ZlibStream,
            CompressionName::ZstdStream => Compression::ZstdStream,
            CompressionName::Payload => Compression::Payload,
        };
        let encoding = match self.encoding {
            EncodingName::Json => Encoding::Json,
            EncodingName::Etf => Encoding::Etf,
        };
        builder.compression(compression).encoding(encoding)
    }
}
