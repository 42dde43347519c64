//! Finds the answer in a text that a model wrote: the one JSON object that counts as its plan.
//!
//! A text that is one JSON object is the answer, whatever stands in its strings. Otherwise the complete objects in it are
//! looked at, without those in reasoning. If it is not clear which of them the model means, none is taken: a plan that was
//! thrown away must not be executed. Prose beside a plan may say that: a plan with prose counts only in a fenced block, and
//! only if no word of the prose can take it back.

use std::collections::HashMap;

use kodo_contract::{parse_json, repeated_key};
use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

use crate::marks::{Kind, Mark, Side, is_markup, mark_at};

/// The members of a plan.
const MEMBERS: [&str; 4] = ["prompt", "toolCalls", "responses", "diffs"];

/// How many characters before a mistake in JSON are shown.
const SHOWN_BEFORE: usize = 40;

/// English words that can take a plan back, or say that it is none: in lower case, without apostrophes. Whoever uses one
/// without meaning that is asked once more.
const TAKE_BACK: [&str; 56] = [
    "not",
    "no",
    "never",
    "none",
    "neither",
    "nor",
    "cannot",
    "dont",
    "doesnt",
    "wont",
    "cant",
    "shouldnt",
    "wouldnt",
    "isnt",
    "didnt",
    "mustnt",
    "without",
    "avoid",
    "ignore",
    "ignored",
    "discard",
    "discarded",
    "disregard",
    "reject",
    "rejected",
    "skip",
    "wrong",
    "incorrect",
    "bad",
    "mistake",
    "mistaken",
    "invalid",
    "unsafe",
    "dangerous",
    "instead",
    "rather",
    "but",
    "however",
    "except",
    "unless",
    "wait",
    "actually",
    "draft",
    "example",
    "sample",
    "hypothetical",
    "template",
    "placeholder",
    "could",
    "would",
    "might",
    "maybe",
    "perhaps",
    "old",
    "previous",
    "refuse",
];

/// Words that say nothing of a plan that follows them.
const LABELS: [&str; 11] = [
    "assistant",
    "final",
    "commentary",
    "message",
    "answer",
    "response",
    "output",
    "result",
    "plan",
    "json",
    "start",
];

/// What a text holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// One object: the plan, or what is to be repaired.
    Object(Value),
    /// More than one plan, or one of which it is not clear whether it counts. Says what to do.
    Unclear(&'static str),
    /// An object that is no valid JSON. Says where it breaks.
    Broken(String),
    /// No object. Says so.
    Nothing(&'static str),
}

const SEVERAL: &str = "more than one plan stands in your answer, and it is not clear which one counts: answer with that one \
                       alone, and with nothing else";
const ENCLOSED: &str = "a plan stands in your answer, but in a place that does not say that it counts: answer with it alone, \
                        and with nothing else";
const IN_PROSE: &str = "a plan stands in your answer among other words, and they may say that it does not count: answer with the \
                        plan alone, as one JSON object, and with nothing before or after it";
const THOUGHT: &str = "data must be one JSON object, and none was found outside of your reasoning";
const NONE: &str = "data must be one JSON object, and none was found";

/// Finds the answer in a text.
pub(crate) fn answer_in(text: &str) -> Found {
    let text = text.trim_matches(|it: char| it.is_whitespace() || it == '\u{feff}');
    if let Ok(value @ Value::Object(_)) = parse_json(text.as_bytes()) {
        return object(text, value);
    }
    let pieces = Scan::of(text).pieces;
    // Also an object that is no plan may say something of the plan beside it.
    let prose = pieces
        .iter()
        .filter(|piece| !piece.discarded && !piece.is_plan(text));
    let prose = prose.map(|piece| &text[piece.begin..piece.end]);
    let prose: Vec<&str> = prose.filter(|it| !is_label(it)).collect();
    let pieces: Vec<&Piece> = pieces.iter().filter(|it| it.content.is_some()).collect();
    let counting = || pieces.iter().copied().filter(|piece| !piece.discarded);
    let mut plans = counting().filter(|piece| piece.is_plan(text));
    if let Some(plan) = plans.next() {
        // A model may say the same twice.
        let mut fenced = plan.fenced;
        for it in plans {
            if it.is_broken() || it.content != plan.content {
                return Found::Unclear(SEVERAL);
            }
            fenced |= it.fenced;
        }
        // What is broken has to be repaired in any case.
        let may_be_none = !prose.is_empty() && (!fenced || prose.iter().any(|it| takes_back(it)));
        return match () {
            () if plan.enclosed => Found::Unclear(ENCLOSED),
            () if may_be_none && !plan.is_broken() => Found::Unclear(IN_PROSE),
            () => plan.found(text),
        };
    }
    match counting().next() {
        Some(piece) => piece.found(text),
        None if pieces.is_empty() => Found::Nothing(NONE),
        None => Found::Nothing(THOUGHT),
    }
}

/// An object that stands in this text, unless it has a key twice: which of its values counts is not defined.
fn object(text: &str, value: Value) -> Found {
    match repeated_key(text.as_bytes()) {
        Some(key) => Found::Broken(format!(
            "data has the key {key} more than once in one object, and it is not clear which value counts: give each key once"
        )),
        None => Found::Object(value),
    }
}

/// Whether a text only names what follows: the words of channels and chat templates, and those that mean "answer".
fn is_label(text: &str) -> bool {
    let words = text.split(|it: char| !it.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .all(|word| LABELS.contains(&word.to_lowercase().as_str()))
}

/// Whether prose has a word that can take a plan back.
fn takes_back(prose: &str) -> bool {
    let prose = prose.replace(['\'', '\u{2019}'], "").to_lowercase();
    let mut words = prose.split(|it: char| !it.is_alphanumeric());
    words.any(|word| TAKE_BACK.contains(&word))
}

/// An object in a text, or prose.
#[derive(Debug)]
struct Piece {
    begin: usize,
    /// Where it ends; for a broken one, where its braces are balanced.
    end: usize,
    /// The object, or where its JSON breaks; `None` for prose.
    content: Option<Result<Value, String>>,
    /// Whether it stands in a fenced block of Markdown.
    fenced: bool,
    /// Whether it stands in reasoning, or was struck out.
    discarded: bool,
    /// Whether it stands in something that is not known to be part of an answer: an unknown tag, or a broken object.
    enclosed: bool,
}

impl Piece {
    /// Whether it is a plan, or something that was meant as one.
    fn is_plan(&self, text: &str) -> bool {
        match &self.content {
            None => false,
            Some(Ok(value)) => {
                let members = MEMBERS.iter().filter(|name| value.get(name).is_some());
                value.get("toolCalls").is_some() || members.count() > 1
            }
            Some(Err(_)) => text[self.begin..self.end].contains("toolCalls"),
        }
    }

    fn is_broken(&self) -> bool {
        matches!(self.content, Some(Err(_)))
    }

    fn found(&self, text: &str) -> Found {
        match &self.content {
            Some(Ok(value)) => object(&text[self.begin..self.end], value.clone()),
            Some(Err(reason)) => Found::Broken(format!("data is no valid JSON: {reason}")),
            None => Found::Nothing(NONE),
        }
    }
}

/// Reads the objects of a text from its beginning to its end, in time linear in its length.
#[derive(Debug, Default)]
struct Scan {
    pieces: Vec<Piece>,
    /// Whether what comes is reasoning, and how that is marked.
    reasoning: Option<Kind>,
    /// The character of the fence that what comes stands in.
    fence: Option<char>,
    /// Where the prose began that what comes may go on with.
    prose: Option<usize>,
    /// So many pieces from the first one on are reasoning whose beginning is not in the text.
    reasoned: usize,
    /// The pairs that are open: the number of pieces before each, by name.
    open: HashMap<String, Vec<usize>>,
    /// The pairs that were closed: the number of pieces before each, up to its end, and whether they are discarded.
    closed: Vec<(usize, usize, bool)>,
    /// Where the last broken object ends. What stands before that is a part of it.
    broken_to: usize,
    /// Where the last broken object in reasoning breaks. No object that begins before that is complete.
    tried_to: usize,
}

impl Scan {
    fn of(text: &str) -> Self {
        let mut scan = Self::default();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let fence = fence_at(rest, &text[..at]);
            let mark = mark_at(rest, &text[..at]);
            if rest.starts_with('{') {
                at += scan.take_object(text, at);
            } else if let Some((mark, length)) = mark {
                scan.end_prose(text, at);
                let was = scan.reasoning;
                scan.take_mark(mark);
                if let Some((character, _)) = fence
                    && was == scan.reasoning
                    && was != Some(Kind::Fence)
                {
                    scan.toggle(character);
                }
                at += length;
            } else if let Some((character, length)) = fence {
                scan.end_prose(text, at);
                scan.toggle(character);
                at += length;
            } else if let Some(length) = wrapper_at(rest) {
                scan.end_prose(text, at);
                at += length;
            } else {
                scan.prose.get_or_insert(at);
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        scan.end_prose(text, at);
        scan.apply();
        scan
    }

    /// Takes the object that begins at `begin`, if there is one. Returns how many bytes were read.
    fn take_object(&mut self, text: &str, begin: usize) -> usize {
        if begin < self.tried_to {
            return 1;
        }
        let rest = &text[begin..];
        let enclosed = begin < self.broken_to;
        let (length, content) = match length_of_object(rest) {
            Ok(length) => {
                let parsed = parse_json(&rest.as_bytes()[..length]);
                (length, parsed.map_err(|error| error.to_string()))
            }
            // A brace in some other text, or in a broken object.
            Err(_) if enclosed || !begins_with_a_key(rest) => return 1,
            Err(error) => {
                let at = offset(rest, error.line(), error.column()).max(1);
                if self.reasoning.is_some() {
                    // It does not count, and the reasoning may end within what seems to be its string.
                    self.tried_to = begin + at;
                    return 1;
                }
                (at, Err(mistake(rest, at)))
            }
        };
        self.end_prose(text, begin);
        let mut end = begin + length;
        if content.is_err() {
            end = end.max(begin + balanced(rest));
            self.broken_to = self.broken_to.max(end);
        }
        self.pieces.push(Piece {
            begin,
            end,
            content: Some(content),
            fenced: self.fence.is_some(),
            discarded: self.reasoning.is_some(),
            enclosed,
        });
        length
    }

    /// Ends the prose before `at`, if there is any that has words.
    fn end_prose(&mut self, text: &str, at: usize) {
        let Some(begin) = self.prose.take() else {
            return;
        };
        // What a broken object says is no prose.
        let begin = begin.max(self.broken_to.min(at));
        if !text[begin..at].contains(char::is_alphanumeric) {
            return;
        }
        self.pieces.push(Piece {
            begin,
            end: at,
            content: None,
            fenced: self.fence.is_some(),
            discarded: self.reasoning.is_some(),
            enclosed: false,
        });
    }

    /// A fence begins, or ends.
    fn toggle(&mut self, character: char) {
        self.fence = match self.fence {
            Some(it) if it == character => None,
            None => Some(character),
            other => other,
        };
    }

    fn take_mark(&mut self, mark: Mark) {
        match mark {
            Mark::Opens(kind) => {
                self.reasoning.get_or_insert(kind);
            }
            Mark::Ends(kind) => {
                if self.reasoning.take_if(|it| *it == kind).is_some() {
                    self.tried_to = 0;
                }
            }
            Mark::Closes => {
                self.tried_to = 0;
                if self.reasoning.take().is_none() {
                    self.reasoned = self.pieces.len();
                }
            }
            Mark::Pair(name, Side::Opens) => self.open(name),
            Mark::Pair(name, Side::Closes) => {
                self.close(&name);
            }
            Mark::Pair(name, Side::Either) => {
                if !self.close(&name) {
                    self.open(name);
                }
            }
        }
    }

    fn open(&mut self, name: String) {
        self.open.entry(name).or_default().push(self.pieces.len());
    }

    /// Closes the last pair of this name. Returns whether one was open.
    fn close(&mut self, name: &str) -> bool {
        let Some(first) = self.open.get_mut(name).and_then(Vec::pop) else {
            return false;
        };
        if first < self.pieces.len() {
            self.closed
                .push((first, self.pieces.len(), Mark::discards(name)));
        }
        true
    }

    /// Marks the pieces that stand between the sides of a pair, or before the end of reasoning.
    fn apply(&mut self) {
        let mut changes = vec![(0_i64, 0_i64); self.pieces.len() + 1];
        for (first, end, discards) in &self.closed {
            for (at, by) in [(*first, 1), (*end, -1)] {
                match discards {
                    true => changes[at].0 += by,
                    false => changes[at].1 += by,
                }
            }
        }
        let (mut discarded, mut enclosed) = (0, 0);
        for (index, piece) in self.pieces.iter_mut().enumerate() {
            discarded += changes[index].0;
            enclosed += changes[index].1;
            piece.discarded |= discarded > 0 || index < self.reasoned;
            piece.enclosed |= enclosed > 0;
        }
    }
}

/// The fence of Markdown at the beginning of a text: its character, and its length with the language behind it.
fn fence_at(rest: &str, before: &str) -> Option<(char, usize)> {
    let character = rest.chars().next().filter(|it| ['`', '~'].contains(it))?;
    let marks = rest.len() - rest.trim_start_matches(character).len();
    if marks < 3 || before.ends_with(character) {
        return None;
    }
    let behind = &rest[marks..];
    let language =
        behind.trim_start_matches(|it: char| it.is_alphanumeric() || "_+-. ".contains(it));
    Some((character, rest.len() - language.len()))
}

/// The length of the tag or the token at the beginning of a text that is no marking: `<answer>`, `</s>`, `<|im_end|>`.
fn wrapper_at(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('<')?;
    let end = inner
        .char_indices()
        .take_while(|(at, it)| *at < 200 && !['<', '\n', '{'].contains(it))
        .find_map(|(at, it)| (it == '>').then_some(at))?;
    let name = inner[..end].trim_start_matches(['/', '|']);
    (name.starts_with(|it: char| it.is_ascii_alphabetic()) && is_markup(name))
        .then_some(1 + end + 1)
}

/// The length of the JSON object at the beginning of a text. What follows it is not read.
fn length_of_object(text: &str) -> Result<usize, serde_json::Error> {
    let mut deserializer = Deserializer::from_str(text).into_iter::<IgnoredAny>();
    match deserializer.next() {
        Some(Ok(_)) => Ok(deserializer.byte_offset()),
        Some(Err(error)) => Err(error),
        // A text that begins with a brace is not empty.
        None => Ok(0),
    }
}

/// Whether a text that begins with a brace was meant as an object: a name and a colon follow it. The name may be in wrong
/// quotes or in none.
fn begins_with_a_key(text: &str) -> bool {
    let rest = text[1..].trim_start();
    let quotes = ['"', '\'', '\u{201c}', '\u{201d}', '`'];
    let name = rest.trim_start_matches(quotes);
    let after = name.trim_start_matches(|it: char| it.is_alphanumeric() || "_-$. ".contains(it));
    let named = after.len() < name.len() || rest.starts_with("\"\"");
    named
        && after
            .trim_start_matches(quotes)
            .trim_start()
            .starts_with(':')
}

/// The length of the object at the beginning of a text by its braces, as far as strings can be told from other text; the
/// whole length if it does not end.
fn balanced(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Where a line and a column, both from 1, are in a text.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (before + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The mistake in words, with the text before it.
fn mistake(text: &str, at: usize) -> String {
    let before: Vec<char> = text[..at].chars().rev().take(SHOWN_BEFORE).collect();
    let before: String = before.into_iter().rev().collect();
    // Its words are better if the value is wanted.
    match serde_json::from_str::<Value>(text) {
        Err(error) => format!("{error}, after {}", before.trim()),
        Ok(_) => format!("it breaks after {}", before.trim()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(prompt: &str) -> Value {
        json!({"prompt": prompt, "toolCalls": [], "responses": [{}], "diffs": []})
    }

    fn p() -> Value {
        plan("a } b \" { </think> ``` <x>")
    }

    #[test]
    fn a_plan_is_found_in_whatever_a_model_writes_around_it() {
        let (d, p) = (plan("a draft"), p());
        for text in [
            format!("{p}"),
            format!("\u{feff}\n {p}\n"),
            format!("Sure! Here is the plan:\n```json\n{p}\n```\nAnything else?"),
            format!("Here it is:\n```\n{p}\n```"),
            format!("```json\n{p}\n```"),
            format!("```{p}```"),
            format!("~~~json\n{p}\n~~~\nDone."),
            format!("{p}\n\nThat is:\n```json\n{p}\n```"),
            format!("[{p}]"),
            format!("<answer>{p}</answer>"),
            format!("<s> {p}</s><|im_end|>"),
            // Reasoning, in every way.
            format!("<think>maybe {{\"prompt\": 1}}</think>{p}"),
            format!("<thinking>{d}, but that is wrong</thinking>{p}"),
            format!("{d}, but that is wrong</think>{p}"),
            format!("<think>{d}</think>{p}<think>good</think>"),
            format!("<think>the tag <think> and {d}</think>{p}"),
            format!("<think>{d}</think>{d}</think>{p}"),
            format!("<think>\n```\n{d}\n```\n</think>\n```\n{p}\n```"),
            format!("[THINK]{d}[/THINK]{p}"),
            format!("\u{25c1}think\u{25b7}{d}\u{25c1}/think\u{25b7}{p}"),
            format!(
                "<|channel|>analysis<|message|>{d}<|end|><|start|>assistant<|channel|>final<|message|>{p}<|return|>"
            ),
            format!("analysisWe could {d} but no.assistantfinal{p}"),
            format!("<|START_THINKING|>{d}<|END_THINKING|><|START_RESPONSE|>{p}<|END_RESPONSE|>"),
            format!("Here is my thought process: {d}\nHere is my response: {p}"),
            format!("<reflection>{d}</reflection> <!-- {d} --> ~~{d}~~ <del>{d}</del> {p}"),
            format!("```thinking\n{d}\n```\n```json\n{p}\n```"),
            format!("<think>{{\"prompt\": \"</think>{p}"),
        ] {
            assert_eq!(answer_in(&text), Found::Object(p.clone()), "{text}");
        }
    }

    #[test]
    fn prose_beside_a_plan_may_take_it_back_so_the_plan_is_asked_for_alone() {
        let d = plan("a draft");
        for text in [
            format!("Do not use this: {d}"),
            format!("{d}\nDo not use this."),
            format!("Here is the plan: {d}"),
            format!("An example would be {{\"prompt\": 1}}, but: {d}"),
            format!("{{unquoted: braces}} {d}"),
            format!("a {{ that does not end. {d}"),
            format!("if a<b> then {d}"),
            format!("<do not use this plan>{d}"),
            format!("<ignore the following, it is wrong> {d}"),
            format!("<answer that is not meant>{d}</answer>"),
            format!("do not use this\n```json\n{d}\n```"),
            format!("```json\n{d}\n```\nThat is what I won\u{2019}t do."),
            format!("```json\n{d}\n// but this is wrong\n```"),
            format!("A draft:\n```\n{d}\n```"),
            format!("<think>hm</think>I would have said {d}"),
        ] {
            assert_eq!(answer_in(&text), Found::Unclear(IN_PROSE), "{text}");
        }
        // What is said in reasoning is not about the answer.
        let text = format!("<think>not {d}, that is wrong</think>\n```json\n{d}\n```");
        assert_eq!(answer_in(&text), Found::Object(d.clone()), "{text}");
    }

    #[test]
    fn a_key_that_is_given_twice_is_told_wherever_it_stands() {
        for (text, key) in [
            (
                r#"{"prompt":"p","toolCalls":[],"toolCalls":[{}],"responses":[],"diffs":[]}"#,
                "\"toolCalls\"",
            ),
            (
                r#"{"prompt":"p","toolCalls":[{"name":"exec","args":{"argv":["a"],"\u0061rgv":["b"]}}]}"#,
                "\"argv\"",
            ),
        ] {
            for text in [text.to_owned(), format!("Here:\n```json\n{text}\n```")] {
                let Found::Broken(said) = answer_in(&text) else {
                    panic!("{text}: {:?}", answer_in(&text));
                };
                assert!(
                    said.contains(key) && said.contains("more than once"),
                    "{said}"
                );
            }
        }
    }

    #[test]
    fn of_several_plans_none_is_taken() {
        let (d, p) = (plan("a draft"), p());
        let unfinished = r#"{"prompt":"p","toolCalls":[{"name":"exec","args":{"#;
        for text in [
            format!(
                "a first try\n```json\n{d}\n```\nbut that deletes too much, so\n```json\n{p}\n```"
            ),
            format!("{d}{p}"),
            format!("[{d},{p}]"),
            format!("<musing>{d}</musing>{p}"),
            format!("{d} or rather {unfinished}"),
            format!("{d} or rather {{\"toolCalls\": 1}}"),
            format!("{} {d} or rather {p}", "{".repeat(1000)),
            format!("{{\"note\": \"said \"{d}\"\", \"toolCalls\": []}} {p}"),
        ] {
            assert_eq!(answer_in(&text), Found::Unclear(SEVERAL), "{text}");
        }
        for text in [
            format!("<musing>{d}, but no</musing> I would rather not."),
            format!("{{\"note\": \"said \"{d}\""),
        ] {
            let found = answer_in(&text);
            assert!(matches!(found, Found::Unclear(_)), "{text}: {found:?}");
        }
        for text in [
            format!("<think>{d}</think>"),
            format!("<think>{d}"),
            format!("{d}</think> I would rather not."),
            format!("~~{d}~~"),
        ] {
            assert_eq!(answer_in(&text), Found::Nothing(THOUGHT), "{text}");
        }
    }

    #[test]
    fn broken_json_is_shown_where_it_breaks() {
        let broken = |text: &str| match answer_in(text) {
            Found::Broken(reason) => reason,
            other => panic!("{text}: {other:?}"),
        };
        let call = r#"{"name":"exec","args":{"argv":["ls"]}}"#;
        let comma = broken(&format!(
            r#"{{"prompt":"p","toolCalls":[{call}],"responses":[{{"role":"assistant"}}],"diffs":[],}}"#
        ));
        assert!(
            comma.contains("trailing comma at line 1") && comma.ends_with("\"diffs\":[],"),
            "{comma}"
        );
        let inner = broken(&format!(
            "Here:\n```json\n{{\"prompt\":\"p\",\n\"toolCalls\":[{call},]}}\n```"
        ));
        assert!(inner.contains("trailing comma at line 2"), "{inner}");
        for (text, says) in [
            (r#"{"prompt":"p""#, "EOF"),
            (r"{'prompt':'p','toolCalls':[]}", "key must be a string"),
            (
                r#"{prompt:"p",toolCalls:[{"name":"a","args":{}}]}"#,
                "key must be a string",
            ),
            (r#"{"prompt":"\ud83d","toolCalls":[]}"#, "hex escape"),
            (
                r#"{"prompt":"p","toolCalls":None,"responses":[{"a":1}]}"#,
                "expected",
            ),
        ] {
            let reason = broken(text);
            assert!(reason.contains(says), "{text}: {reason}");
        }
    }

    #[test]
    fn without_a_plan_the_first_object_is_shown_and_without_one_nothing() {
        let first = answer_in("a {\"b\":{\"c\":1}} {\"d\":2}");
        assert_eq!(first, Found::Object(json!({"b": {"c": 1}})));
        for text in ["", "no", "[1]", "{", "{]", "\"{", "}{"] {
            assert_eq!(answer_in(text), Found::Nothing(NONE), "{text}");
        }
    }

    #[test]
    fn a_long_text_of_any_kind_is_read_in_linear_time() {
        // Each would take hours if every beginning were read to the end of the text.
        for part in [
            "{",
            "{\"a\":",
            "{a:",
            "[{",
            "{}",
            "<a>",
            "</a>",
            "`",
            "~~",
            "<think>",
            "<|channel|>",
            "{\"a\":1,} ",
        ] {
            let text = part.repeat((1 << 20) / part.len());
            for text in [format!("<a>{text}</a>"), text] {
                assert!(!matches!(answer_in(&text), Found::Unclear(_)), "{part}");
            }
        }
    }
}
