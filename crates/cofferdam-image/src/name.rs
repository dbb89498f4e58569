//! Names of images, as people write them and as programs store them.

/// Returns true if two names mean the same image: `debian`, `debian:latest` and `docker.io/library/debian:latest` do.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one == other || full(one) == full(other)
}

/// Returns a name with the parts that it leaves out.
fn full(name: &str) -> String {
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
        Some(_) => (HUB, name.to_owned()),
        None => (HUB, format!("library/{name}")),
    };
    let path =
        if registry == HUB && !path.contains('/') { format!("library/{path}") } else { path };
    match digest {
        Some(digest) => format!("{registry}/{path}@{digest}"),
        None if path.contains(':') => format!("{registry}/{path}"),
        None => format!("{registry}/{path}:latest"),
    }
}

const HUB: &str = "docker.io";

/// The first part of a name is a registry if it could be a host and not a user.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_full() {
        let cases = [
            ("debian", "docker.io/library/debian:latest", true),
            ("debian:bookworm", "docker.io/debian:bookworm", true),
            ("docker.io/library/debian:bookworm", "debian:bookworm", true),
            ("me/tool:1", "docker.io/me/tool:1", true),
            ("localhost/tool", "localhost/tool:latest", true),
            ("127.0.0.1:5000/tool", "127.0.0.1:5000/tool:latest", true),
            ("127.0.0.1:5000/tool", "tool", false),
            ("debian:bookworm", "debian:trixie", false),
            ("localhost/tool", "tool", false),
            ("latest", "latest", true),
            ("a@sha256:00", "docker.io/library/a@sha256:00", true),
        ];
        for (one, other, expect) in cases {
            assert_eq!(same(one, other), expect, "{one} and {other}");
        }
    }
}
