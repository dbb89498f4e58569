//! Which symbolic links stay inside a tree, by their text alone.

/// Returns whether a link that stands `depth` directories below the tree's root stays in the tree.
///
/// Only leading `..` are counted: a later one would go up from wherever a link before it leads, which the text does not
/// tell. So `../a/b` is judged exactly, `a/../b` is taken to leave. If every link of a tree stays in it by this rule, no
/// chain of them leads out.
pub(crate) fn stays_inside(depth: usize, target: &[u8]) -> bool {
    if target.is_empty() || target[0] == b'/' || target.contains(&0) {
        return false;
    }
    let mut components =
        target.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let mut ups = 0;
    let first_down = components.by_ref().find(|name| {
        let up = *name == b"..";
        ups += usize::from(up);
        !up
    });
    ups <= depth && (first_down.is_none() || components.all(|name| name != b".."))
}

#[cfg(test)]
mod tests {
    use super::stays_inside;

    #[test]
    fn judges_by_the_text() {
        let check = |depth: usize, target: &str, expect: bool| {
            assert_eq!(stays_inside(depth, target.as_bytes()), expect, "for {target:?} at {depth}");
        };
        check(0, "a", true);
        check(0, "./a//b", true);
        check(0, ".", true);
        check(1, "..", true);
        check(2, "../../a", true);
        check(1, "./.././a", true);
        check(0, "..", false);
        check(1, "../../a", false);
        check(0, "/etc/passwd", false);
        check(3, "a/../b", false);
        check(3, "a/..", false);
        check(0, "", false);
        check(0, "a\0b", false);
        check(0, "...", true);
    }
}
