//! Aligned columns of text for the terminal.

/// Renders rows under a heading; every column is as wide as its widest cell, the last one is not padded.
pub(crate) fn render<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let all = || std::iter::once(&heading).chain(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        all().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in all() {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(widths) {
            line += &format!(" {cell:<width$} ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn aligns_by_characters() {
        let rows = [["crée".to_owned(), "1".to_owned()], ["a".to_owned(), "two words".to_owned()]];
        assert_eq!(
            render(["name", "value"], &rows),
            "  name  value\n  crée  1\n  a     two words\n"
        );
    }

    #[test]
    fn a_heading_stands_alone() {
        assert_eq!(render(["name", "v"], &[]), "  name  v\n");
    }
}
