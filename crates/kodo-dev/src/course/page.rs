//! The page as data: sections, and the shell blocks in them with their marks.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use super::brief;
use super::marks::Kind;

/// Languages of blocks that a reader would take for commands.
const SHELLS: [&str; 6] = ["bash", "sh", "shell", "zsh", "console", "shell-session"];

/// A course: its sections in the order of the page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// What begins at each heading, down to the next one of any level.
    pub sections: Vec<Section>,
}

/// A heading and what stands below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The heading's text.
    pub title: String,
    /// Its level; the page's title has 1.
    pub level: usize,
    /// Its line.
    pub line: usize,
    /// How the headings of sections begin that come before it wherever it is run, and the line that says so:
    /// `<!-- needs: Walkthrough C -->`.
    pub needs: Vec<(String, usize)>,
    /// Its shell blocks, in order.
    pub blocks: Vec<Block>,
}

/// A shell block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Line of the first command.
    pub line: usize,
    /// The commands, as the page has them.
    pub code: String,
    /// What to do with them.
    pub kind: Kind,
    /// What they print, and the line of that, where the page says so: `[..]` stands for anything within a line, a line
    /// `...` for any lines.
    pub expected: Option<(String, usize)>,
}

impl Block {
    /// Its first command, to tell people which one is meant.
    pub fn title(&self) -> String {
        let mut lines = self.code.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        brief(first.unwrap_or_default(), 100)
    }
}

impl Course {
    /// Reads a page from a file.
    ///
    /// # Errors
    /// If the file cannot be read, and as [`Course::parse`].
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let page = std::fs::read_to_string(file);
        Self::parse(&page.with_context(|| format!("reading {}", file.display()))?)
    }

    /// Reads a page: headings that begin with `#`, blocks between lines of three backquotes.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line: marks that mean nothing, shell blocks without one, needs of sections
    /// that there are not.
    pub fn parse(page: &str) -> anyhow::Result<Self> {
        let mut course = Self::default();
        let mut wrong = Vec::new();
        // Whether the block before this line may still get its expected output.
        let mut output_may_follow = false;
        let mut lines = (1..).zip(page.lines());
        while let Some((number, line)) = lines.next() {
            let text = line.trim_start();
            if let Some(info) = text.strip_prefix("```") {
                let indent = line.len() - text.len();
                let mut code = String::new();
                for (_, line) in lines.by_ref().take_while(|(_, line)| line.trim() != "```") {
                    code.push_str(line.get(indent..).unwrap_or_default());
                    code.push('\n');
                }
                let block = course.block(info.trim(), number, code, &mut output_may_follow);
                wrong.extend(block.err().map(|text| (number, text)));
            } else if line.starts_with('#') {
                let title = line.trim_start_matches('#');
                course.sections.push(Section {
                    title: title.replace('`', "").trim().to_owned(),
                    level: line.len() - title.len(),
                    line: number,
                    ..Section::default()
                });
                output_may_follow = false;
            } else if let Some(names) = text.strip_prefix("<!-- needs:")
                && let Some(section) = course.sections.last_mut()
            {
                let names = names.trim_end().trim_end_matches("-->").split(',');
                let names = names.map(|name| (name.trim().to_owned(), number));
                section.needs.extend(names);
            }
        }
        let needs = course.sections.iter().flat_map(|section| &section.needs);
        wrong.extend(
            needs
                .filter(|(name, _)| course.find(name).is_err())
                .map(|(name, line)| (*line, format!("no section begins with {name:?}"))),
        );
        if wrong.is_empty() {
            return Ok(course);
        }
        wrong.sort();
        let wrong = wrong.iter();
        let wrong = wrong.map(|(line, text)| format!("\n  line {line}: {text}"));
        let wrong: String = wrong.collect();
        bail!("the course cannot be run as it is written:{wrong}")
    }

    /// Takes a block that stands below the last section. `line` is that of its opening fence.
    fn block(
        &mut self,
        info: &str,
        line: usize,
        code: String,
        output_may_follow: &mut bool,
    ) -> Result<(), String> {
        let may_follow = std::mem::take(output_may_follow);
        let (language, words) = info.split_once(char::is_whitespace).unwrap_or((info, ""));
        let words = words.trim();
        let section = self.sections.last_mut();
        if SHELLS.contains(&language) {
            let kind = Kind::parse(words)?;
            let section = section.ok_or("a shell block stands below a heading")?;
            *output_may_follow = matches!(kind, Kind::Run(_));
            section.blocks.push(Block {
                line: line + 1,
                code,
                kind,
                expected: None,
            });
        } else if words == "output" {
            let block = section.and_then(|section| section.blocks.last_mut());
            let block = block.filter(|_| may_follow);
            let block = block.ok_or("expected output follows a shell block that is run")?;
            block.expected = Some((code, line + 1));
        } else if !words.is_empty() {
            return Err(format!(
                "unknown mark {words:?}: a block that holds no commands may say output, or nothing"
            ));
        }
        Ok(())
    }

    /// The sections that have these names, with what stands below their headings and what they need, in the order of
    /// the page. A name is how a heading begins, or the letter of a walkthrough. No names are the whole course.
    ///
    /// # Errors
    /// If no heading begins with one of the names; with those that there are.
    pub fn select(&self, names: &[String]) -> anyhow::Result<Vec<&Section>> {
        if names.is_empty() {
            return Ok(self.sections.iter().collect());
        }
        let mut wanted = BTreeSet::new();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = names.pop() {
            for index in self.find(name)? {
                if wanted.insert(index) {
                    let needs = self.sections[index].needs.iter();
                    names.extend(needs.map(|(name, _)| name.as_str()));
                }
            }
        }
        let wanted = wanted.into_iter();
        Ok(wanted.map(|index| &self.sections[index]).collect())
    }

    /// The section of a name, and those below it.
    fn find(&self, name: &str) -> anyhow::Result<Vec<usize>> {
        let walkthrough = format!("Walkthrough {name}");
        let first = [name, &walkthrough].iter().find_map(|name| {
            let mut sections = self.sections.iter();
            sections.position(|section| begins(&section.title, name))
        });
        let first = first.ok_or_else(|| {
            let known = self.sections.iter();
            let known = known.map(|section| format!("\n  {}", section.title));
            let known: String = known.collect();
            anyhow!("no section of the course begins with {name:?}; there are:{known}")
        })?;
        let level = self.sections[first].level;
        let below = self.sections[first + 1..].iter();
        let below = below.take_while(|section| section.level > level).count();
        Ok((first..=first + below).collect())
    }
}

/// Whether a title begins with these words, whatever their case.
fn begins(title: &str, words: &str) -> bool {
    let (title, words) = (title.to_lowercase(), words.trim().to_lowercase());
    let rest = title.strip_prefix(&words).filter(|_| !words.is_empty());
    rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(page: &str) -> String {
        Course::parse(page).unwrap_err().to_string()
    }

    #[test]
    fn blocks_are_found_with_their_lines_marks_and_output() {
        let page = "# Course\n\n## `One`: first\n\n```bash run slow\necho a\n\necho b\n```\n\nIt prints:\n\n```text output\na\nb\n```\n\n\
                    - in a list\n\n  ```sh no-run reason=\"no need\"\n  ls\n  ```\n\n```text\njust a picture\n```\n";
        let course = Course::parse(page).unwrap();
        let [_, section] = course.sections.as_slice() else {
            panic!("{course:?}")
        };
        assert_eq!(
            (section.title.as_str(), section.level, section.line),
            ("One: first", 2, 3)
        );
        let [first, second] = section.blocks.as_slice() else {
            panic!("{section:?}")
        };
        assert_eq!((first.line, first.code.as_str()), (6, "echo a\n\necho b\n"));
        assert!(matches!(&first.kind, Kind::Run(marks) if marks.slow));
        assert_eq!(first.expected, Some(("a\nb\n".to_owned(), 14)));
        assert_eq!((second.line, second.code.as_str()), (21, "ls\n"));
        assert_eq!(second.kind, Kind::Illustration("no need".to_owned()));
        assert_eq!(first.title(), "echo a");
    }

    #[test]
    fn everything_that_is_wrong_comes_at_once_in_the_order_of_the_page() {
        let page = "# C\n```bash rnu\nls\n```\n```zsh\nls\n```\n```bash run\nls\n```\n```text outptu\nx\n```\n\
                    <!-- needs: Nowhere -->\n";
        let wrong = wrong(page);
        let lines: Vec<&str> = wrong.lines().skip(1).collect();
        for (line, number) in lines.iter().zip([2, 5, 11, 14]) {
            assert!(line.starts_with(&format!("  line {number}: ")), "{wrong}");
        }
        assert_eq!(lines.len(), 4, "{wrong}");
    }

    #[test]
    fn output_without_its_commands_is_refused() {
        for page in [
            "# C\n```text output\nx\n```\n",
            "# C\n```bash no-run reason=x\nls\n```\n```text output\nx\n```\n",
            "# C\n```bash run\nls\n```\n```text output\nx\n```\n```text output\ny\n```\n",
            "# C\n```bash run\nls\n```\n## D\n```text output\nx\n```\n",
        ] {
            let found = wrong(page);
            assert!(found.contains("expected output follows"), "{found}");
        }
    }

    #[test]
    fn a_section_comes_with_what_it_needs_and_what_stands_below_it() {
        let page = "# Course\n## Walkthrough A: start\n## Walkthrough B: go on\n<!-- needs: A -->\n### Deeper\n\
                    ## Walkthrough BC: other\n<!-- needs: Walkthrough B -->\n";
        let course = Course::parse(page).unwrap();
        let titles = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let sections = course.select(&names).unwrap();
            sections.iter().map(|it| it.title.clone()).collect()
        };
        assert_eq!(titles(&["walkthrough a"]), ["Walkthrough A: start"]);
        assert_eq!(
            titles(&["B"]),
            ["Walkthrough A: start", "Walkthrough B: go on", "Deeper"]
        );
        assert_eq!(titles(&["bc"]).len(), 4);
        assert_eq!(titles(&[]).len(), 5);
        let refused = course.select(&["Walk".to_owned()]).unwrap_err();
        assert!(refused.to_string().contains("Walkthrough A: start"));
    }
}
