//! The page as data.

use std::collections::BTreeSet;

use crate::course::{CourseError, Marks, brief};

/// A course: its sections in the order of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// What begins at each heading, down to the next one of any level.
    pub sections: Vec<Section>,
}

/// A heading and what stands below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The heading's text.
    pub title: String,
    /// Its level; the page's title has 1.
    pub level: u8,
    /// Its line.
    pub line: usize,
    /// Sections that come before it wherever it is run, from a comment `<!-- needs: Walkthrough C -->`.
    pub needs: Vec<Need>,
    /// Its shell blocks, in order.
    pub blocks: Vec<Block>,
}

/// That a section needs another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// How that one's heading begins.
    pub name: String,
    /// Where it says so.
    pub line: usize,
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
    /// What they print, where the page says so.
    pub expected: Option<Expected>,
}

/// What to do with a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Run it.
    Run(Marks),
    /// Leave it alone, for this reason.
    Illustration(String),
}

/// What a block prints: `[..]` stands for anything within a line, a line `...` for any lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Line of the first line of it.
    pub line: usize,
    /// The text.
    pub text: String,
}

impl Block {
    /// Its first command, to tell people which one is meant.
    pub fn title(&self) -> String {
        let line = self
            .code
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .unwrap_or_default();
        brief(line, 100)
    }
}

impl Course {
    /// The sections that have these names, with what stands below their headings and what they need, in the order of
    /// the page. A name is how a heading begins, or the letter of a walkthrough. No names are the whole course.
    ///
    /// # Errors
    /// [`CourseError::NoSection`].
    pub fn select(&self, names: &[String]) -> Result<Vec<&Section>, CourseError> {
        if names.is_empty() {
            return Ok(self.sections.iter().collect());
        }
        let mut wanted = BTreeSet::new();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = names.pop() {
            for index in self.find(name)? {
                if wanted.insert(index) {
                    names.extend(
                        self.sections[index]
                            .needs
                            .iter()
                            .map(|need| need.name.as_str()),
                    );
                }
            }
        }
        Ok(wanted
            .into_iter()
            .map(|index| &self.sections[index])
            .collect())
    }

    /// The section of a name, and those below it.
    fn find(&self, name: &str) -> Result<Vec<usize>, CourseError> {
        let walkthrough = format!("Walkthrough {name}");
        let first = [name, &walkthrough]
            .iter()
            .find_map(|name| {
                self.sections
                    .iter()
                    .position(|section| begins(&section.title, name))
            })
            .ok_or_else(|| CourseError::NoSection {
                name: name.to_owned(),
                known: self
                    .sections
                    .iter()
                    .map(|section| section.title.clone())
                    .collect(),
            })?;
        let level = self.sections[first].level;
        let below = self.sections[first + 1..]
            .iter()
            .take_while(|section| section.level > level)
            .count();
        Ok((first..=first + below).collect())
    }

    /// Whether a section of that name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }
}

/// Whether a title begins with these words, whatever their case.
fn begins(title: &str, words: &str) -> bool {
    let (title, words) = (title.to_lowercase(), words.trim().to_lowercase());
    !words.is_empty()
        && title
            .strip_prefix(&words)
            .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# Course
## Walkthrough A: start
## Walkthrough B: go on
<!-- needs: A -->
### Deeper
## Walkthrough BC: other
<!-- needs: Walkthrough B -->
";

    fn titles(names: &[&str]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Course::parse(PAGE)
            .unwrap()
            .select(&names)
            .unwrap()
            .into_iter()
            .map(|section| section.title.clone())
            .collect()
    }

    #[test]
    fn a_section_comes_with_what_it_needs_and_what_stands_below_it() {
        assert_eq!(titles(&["walkthrough a"]), ["Walkthrough A: start"]);
        assert_eq!(
            titles(&["B"]),
            ["Walkthrough A: start", "Walkthrough B: go on", "Deeper"]
        );
        assert_eq!(titles(&["bc"]).len(), 4);
        assert_eq!(titles(&[]).len(), 5);
    }

    #[test]
    fn a_name_that_no_heading_has_is_refused_with_the_names_that_there_are() {
        let refused = Course::parse(PAGE)
            .unwrap()
            .select(&["Walk".to_owned()])
            .unwrap_err();
        assert!(
            refused.to_string().contains("Walkthrough A: start"),
            "{refused}"
        );
    }
}
