//! What the arguments say of the place where commands run: the backend, and the root file system.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use cofferdam::{
    backends,
    sandbox::{ImageSource, RootFilesystem, SandboxBackend},
};

use crate::{
    arguments::PlaceArguments,
    exit::{Exit, Failure},
};

impl PlaceArguments {
    /// Returns the backend that was asked for, else the default.
    pub(crate) fn backend(&self) -> Result<Arc<dyn SandboxBackend>, Failure> {
        match &self.backend {
            Some(name) => backends::open(name).map_err(Failure::usage),
            None => backends::default_backend().ok_or_else(|| {
                Failure::new(Exit::HostUnable, anyhow::anyhow!("this build has no sandbox backend"))
            }),
        }
    }

    /// Returns the root file system that was asked for.
    pub(crate) fn root(&self) -> Option<RootFilesystem> {
        self.image.clone().map(|choice| choice.0)
    }
}

/// A root file system as it is written in an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootChoice(RootFilesystem);

impl FromStr for RootChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = |path: &str| match path {
            "" => Err(format!("{text:?} names no path")),
            path => Ok(PathBuf::from(path)),
        };
        Ok(Self(match text.split_once(':') {
            Some(("oci", directory)) => RootFilesystem::Image(ImageSource::Layout {
                directory: path(directory)?,
                name: None,
            }),
            Some(("archive", file)) => {
                RootFilesystem::Image(ImageSource::Archive { file: path(file)?, name: None })
            }
            Some(("dir", directory)) => RootFilesystem::Directory(path(directory)?),
            Some(("tar", file)) => RootFilesystem::Archive(path(file)?),
            _ if text.is_empty() => return Err("the name of the image is empty".to_owned()),
            _ => RootFilesystem::Image(ImageSource::Reference(text.to_owned())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<RootFilesystem, &str>) {
        assert_eq!(text.parse().map(|RootChoice(root)| root), expect.map_err(str::to_owned));
    }

    #[test]
    fn each_form_of_a_root_file_system() {
        let layout = ImageSource::Layout { directory: "images/a".into(), name: None };
        check("oci:images/a", Ok(RootFilesystem::Image(layout)));
        let archive = ImageSource::Archive { file: "a.tar".into(), name: None };
        check("archive:a.tar", Ok(RootFilesystem::Image(archive)));
        check("dir:/srv/root", Ok(RootFilesystem::Directory("/srv/root".into())));
        check("tar:root.tar.zst", Ok(RootFilesystem::Archive("root.tar.zst".into())));
        for name in ["debian:bookworm", "localhost:5000/a/b@sha256:00", "alpine"] {
            check(name, Ok(RootFilesystem::Image(ImageSource::Reference(name.to_owned()))));
        }
    }

    #[test]
    fn a_form_without_its_path_is_refused() {
        check("dir:", Err("\"dir:\" names no path"));
        check("", Err("the name of the image is empty"));
    }
}
