//! From Markdown to a [`Course`].

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use crate::course::page::Need;
use crate::course::{Block, Complaint, Course, CourseError, Expected, Kind, Marks, Section};

/// Languages of blocks that a reader would take for commands.
const SHELLS: [&str; 6] = ["bash", "sh", "shell", "zsh", "console", "shell-session"];

/// The mark of a block that holds expected output.
const OUTPUT: &str = "output";

impl Course {
    /// Reads a page.
    ///
    /// # Errors
    /// [`CourseError::Malformed`] with every complaint, each with its line.
    pub fn parse(page: &str) -> Result<Self, CourseError> {
        let mut reader = Reader::new(page);
        for (event, range) in Parser::new(page).into_offset_iter() {
            reader.take(event, range);
        }
        let course = Self {
            sections: reader.sections,
        };
        let mut complaints = reader.complaints;
        for need in course.sections.iter().flat_map(|section| &section.needs) {
            if !course.has(&need.name) {
                complaints.push(Complaint {
                    line: need.line,
                    text: format!(
                        "no section begins with {:?}, which is needed here",
                        need.name
                    ),
                });
            }
        }
        complaints.sort_by_key(|complaint| complaint.line);
        if complaints.is_empty() {
            Ok(course)
        } else {
            Err(CourseError::Malformed(complaints))
        }
    }
}

struct Reader<'a> {
    page: &'a str,
    sections: Vec<Section>,
    complaints: Vec<Complaint>,
    open: Open,
    /// Whether the block before this one may still get its output.
    output_may_follow: bool,
}

/// What the events are inside of.
enum Open {
    Nothing,
    Heading,
    Code {
        info: Option<String>,
        line: usize,
        text: String,
    },
}

impl<'a> Reader<'a> {
    fn new(page: &'a str) -> Self {
        Self {
            page,
            sections: Vec::new(),
            complaints: Vec::new(),
            open: Open::Nothing,
            output_may_follow: false,
        }
    }

    fn take(&mut self, event: Event<'_>, range: Range<usize>) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                let line = self.line(range.start);
                self.sections.push(Section {
                    title: String::new(),
                    level: level as u8,
                    line,
                    needs: Vec::new(),
                    blocks: Vec::new(),
                });
                self.output_may_follow = false;
                self.open = Open::Heading;
            }
            Event::End(TagEnd::Heading(_)) => self.open = Open::Nothing,
            Event::Start(Tag::CodeBlock(kind)) => {
                let info = match kind {
                    CodeBlockKind::Fenced(info) => Some(info.into_string()),
                    CodeBlockKind::Indented => None,
                };
                self.open = Open::Code {
                    info,
                    line: self.line(range.start),
                    text: String::new(),
                };
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Open::Code { info, line, text } =
                    std::mem::replace(&mut self.open, Open::Nothing)
                {
                    self.code(info, line, text);
                }
            }
            Event::Text(text) | Event::Code(text) => match &mut self.open {
                Open::Code { text: code, .. } => code.push_str(&text),
                Open::Heading => {
                    if let Some(section) = self.sections.last_mut() {
                        section.title.push_str(&text);
                    }
                }
                Open::Nothing => {}
            },
            Event::Html(html) => self.comment(&html, range.start),
            _ => {}
        }
    }

    /// A block that is over.
    fn code(&mut self, info: Option<String>, line: usize, text: String) {
        let Some(info) = info else {
            self.complain(
                line,
                "an indented code block has no place for marks: use a fence",
            );
            return;
        };
        let (language, words) = info
            .trim()
            .split_once(char::is_whitespace)
            .unwrap_or((info.trim(), ""));
        let words = words.trim();
        if SHELLS.contains(&language.to_lowercase().as_str()) {
            self.commands(words, line, text);
        } else if words == OUTPUT {
            self.expected(line, text);
        } else if !words.is_empty() {
            self.complain(line, format!("unknown mark {words:?}: a block that holds no commands may say {OUTPUT}, or nothing"));
        } else {
            // Something else to read; what follows it belongs to no commands any more.
            self.output_may_follow = false;
        }
    }

    fn commands(&mut self, words: &str, line: usize, code: String) {
        let kind = match Marks::parse(words) {
            Ok(Marks {
                no_run: Some(reason),
                ..
            }) => Kind::Illustration(reason),
            Ok(marks) => Kind::Run(marks),
            Err(text) => {
                self.complain(line, text);
                return;
            }
        };
        self.output_may_follow = matches!(kind, Kind::Run(_));
        match self.sections.last_mut() {
            Some(section) => section.blocks.push(Block {
                line: line + 1,
                code,
                kind,
                expected: None,
            }),
            None => self.complain(line, "a shell block stands below a heading"),
        }
    }

    fn expected(&mut self, line: usize, text: String) {
        let block = self
            .sections
            .last_mut()
            .and_then(|section| section.blocks.last_mut());
        match block {
            Some(block) if self.output_may_follow => {
                block.expected = Some(Expected {
                    line: line + 1,
                    text,
                });
                self.output_may_follow = false;
            }
            _ => self.complain(
                line,
                "expected output follows a shell block that is run, and only one does",
            ),
        }
    }

    /// `<!-- needs: A, Walkthrough C -->` is for us; other comments are not.
    fn comment(&mut self, html: &str, start: usize) {
        let Some(names) = html
            .trim()
            .strip_prefix("<!--")
            .and_then(|rest| rest.strip_suffix("-->"))
            .and_then(|inner| inner.trim().strip_prefix("needs:"))
        else {
            return;
        };
        let line = self.line(start);
        if let Some(section) = self.sections.last_mut() {
            let names = names.split(',').map(|name| Need {
                name: name.trim().to_owned(),
                line,
            });
            section.needs.extend(names);
        }
    }

    fn line(&self, offset: usize) -> usize {
        self.page.as_bytes()[..offset]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }

    fn complain(&mut self, line: usize, text: impl Into<String>) {
        self.output_may_follow = false;
        self.complaints.push(Complaint {
            line,
            text: text.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(page: &str) -> Vec<(usize, String)> {
        match Course::parse(page).unwrap_err() {
            CourseError::Malformed(complaints) => complaints
                .into_iter()
                .map(|complaint| (complaint.line, complaint.text))
                .collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn blocks_are_found_with_their_lines_marks_and_output() {
        let page = "# Course\n\n## `One`: first\n\n```bash run slow\necho a\n\necho b\n```\n\nIt prints:\n\n```text output\na\nb\n```\n\n\
                    - in a list\n\n  ```sh no-run reason=\"no need\"\n  ls\n  ```\n\n```text\njust a picture\n```\n";
        let course = Course::parse(page).unwrap();
        assert_eq!(course.sections.len(), 2);
        let section = &course.sections[1];
        assert_eq!(
            (section.title.as_str(), section.level, section.line),
            ("One: first", 2, 3)
        );
        let [first, second] = section.blocks.as_slice() else {
            panic!("{section:?}")
        };
        assert_eq!((first.line, first.code.as_str()), (6, "echo a\n\necho b\n"));
        assert!(matches!(&first.kind, Kind::Run(marks) if marks.slow));
        assert_eq!(
            first.expected,
            Some(Expected {
                line: 14,
                text: "a\nb\n".to_owned()
            })
        );
        assert_eq!((second.line, second.code.as_str()), (21, "ls\n"));
        assert_eq!(second.kind, Kind::Illustration("no need".to_owned()));
        assert_eq!(first.title(), "echo a");
    }

    #[test]
    fn an_unmarked_shell_block_is_refused_with_its_line() {
        for language in SHELLS {
            let found = complaints(&format!("# C\n\n```{language}\nls\n```\n"));
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].0, 3);
            assert!(found[0].1.contains("add run, or no-run"), "{found:?}");
        }
    }

    #[test]
    fn every_complaint_comes_at_once_in_the_order_of_the_page() {
        let page = "# C\n```bash rnu\nls\n```\n\n```bash run\nls\n```\n\n```text outptu\nx\n```\n\n    ls\n\n<!-- needs: Nowhere -->\n";
        let found = complaints(page);
        let lines: Vec<usize> = found.iter().map(|complaint| complaint.0).collect();
        assert_eq!(lines, [2, 10, 14, 16], "{found:?}");
    }

    #[test]
    fn output_without_its_commands_is_refused() {
        for page in [
            "# C\n```text output\nx\n```\n",
            "# C\n```bash no-run reason=x\nls\n```\n```text output\nx\n```\n",
            "# C\n```bash run\nls\n```\n```text output\nx\n```\n```text output\ny\n```\n",
            "# C\n```bash run\nls\n```\n## D\n```text output\nx\n```\n",
        ] {
            let found = complaints(page);
            assert_eq!(found.len(), 1, "{page}");
            assert!(
                found[0].1.starts_with("expected output follows"),
                "{found:?}"
            );
        }
    }
}
