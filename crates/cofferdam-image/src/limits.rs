//! [`ImageLimits`]: bounds on what is read and unpacked.

/// Bounds on one image, all of them finite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of files in one layer, unpacked. Default 16 GiB.
    pub layer_bytes: u64,
    /// Files, links and directories in one layer. Default 1 000 000.
    pub layer_entries: u64,
    /// How many times larger than its packed form a layer may become, once it is above 64 MiB. Default 200.
    pub layer_ratio: u64,
    /// Layers of one image. Default 256; overlay file systems take 500.
    pub layers: usize,
    /// Bytes of one JSON document. Default 4 MiB.
    pub document_bytes: u64,
    /// Files in an archive of images. Default 20 000.
    pub archive_files: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            layer_bytes: 16 << 30,
            layer_entries: 1_000_000,
            layer_ratio: 200,
            layers: 256,
            document_bytes: 4 << 20,
            archive_files: 20_000,
        }
    }
}

/// Below this many bytes no ratio is suspicious.
pub(crate) const RATIO_FREE_BYTES: u64 = 64 << 20;
