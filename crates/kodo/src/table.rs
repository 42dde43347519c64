//! Aligned columns for people.

/// Renders rows under a header, two spaces between columns, no trailing blanks.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut table = line(&mut header.iter().copied());
    for row in rows {
        table.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bäb".to_owned(), "22".to_owned()],
        ];
        assert_eq!(render(&["ID", "N"], &rows), "ID   N\na    1\nbäb  22\n");
    }
}
