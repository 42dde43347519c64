//! The markings by which models, their chat templates and their servers set reasoning and discarded text apart from an
//! answer, where no parser of the server has removed them.

/// A marking in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Reasoning begins, and goes on to its end, or to the end of the text.
    Opens(Kind),
    /// Reasoning ends. If none has begun, all text before it is reasoning: many chat templates put the beginning into the
    /// prompt.
    Closes,
    /// Ends reasoning of this kind. Otherwise it means nothing.
    Ends(Kind),
    /// One side of a pair, by its name. One side alone means nothing.
    Pair(String, Side),
}

/// By what reasoning is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A tag, or a token that stands for one.
    Tag,
    /// A channel of gpt-oss.
    Channel,
    /// A fence of Markdown.
    Fence,
}

/// Which side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It begins.
    Opens,
    /// It ends.
    Closes,
    /// Both sides look the same.
    Either,
}

/// Names of reasoning: in lower case, without separators, and without what is before a colon.
const REASONING: [&str; 16] = [
    "think",
    "thinking",
    "thinks",
    "thinkfast",
    "thinkingprocess",
    "longcatthink",
    "mthink",
    "antthinking",
    "thought",
    "thoughts",
    "thoughtprocess",
    "reasoning",
    "reasoningcontent",
    "reasoningprocess",
    "chainofthought",
    "scratchpad",
];

/// Pairs whose content does not count. One side alone may be a word of the text.
const DISCARDED: [&str; 34] = [
    "!--",
    "~~",
    "del",
    "strike",
    "draft",
    "drafts",
    "reason",
    "reasons",
    "internalreasoning",
    "reflection",
    "reflect",
    "reflecting",
    "selfreflection",
    "scratch",
    "analysis",
    "analyze",
    "analyse",
    "cot",
    "monologue",
    "innermonologue",
    "internalmonologue",
    "innerthoughts",
    "internalthought",
    "internalthoughts",
    "internal",
    "hidden",
    "deliberation",
    "deliberate",
    "rationale",
    "brainstorm",
    "brainstorming",
    "critique",
    "selfcritique",
    "planning",
];

/// Tags around an answer, or around a part of it.
const WRAPPERS: [&str; 34] = [
    "answer",
    "final",
    "finalanswer",
    "finalresponse",
    "response",
    "reply",
    "solution",
    "output",
    "result",
    "plan",
    "json",
    "code",
    "pre",
    "p",
    "div",
    "span",
    "b",
    "strong",
    "em",
    "i",
    "s",
    "body",
    "html",
    "text",
    "content",
    "message",
    "assistant",
    "document",
    "artifact",
    "antartifact",
    "toolcall",
    "functioncall",
    "function",
    "parameter",
];

/// Phrases after which the answer begins.
const PHRASES: [&str; 4] = [
    "here is my response:",
    "here's my response:",
    "...done thinking.",
    "\u{2026}done thinking.",
];

/// The longest marking, in bytes.
const LONGEST: usize = 200;

impl Mark {
    /// Whether what stands between the sides of a pair does not count. Otherwise it is not known whether it does.
    pub(crate) fn discards(name: &str) -> bool {
        DISCARDED.contains(&name)
    }
}

/// The marking at the beginning of `rest`, and its length in bytes. `before` is the text before it.
pub(crate) fn mark_at(rest: &str, before: &str) -> Option<(Mark, usize)> {
    let comment = |side| Mark::Pair("!--".to_owned(), side);
    match rest.as_bytes().first()? {
        b'<' if rest.starts_with("<!--") => Some((comment(Side::Opens), 4)),
        b'-' if rest.starts_with("-->") => Some((comment(Side::Closes), 3)),
        b'<' => tag(rest, '<', '>'),
        // Brackets are common in other text.
        b'[' => tag(rest, '[', ']').filter(|(mark, _)| !matches!(mark, Mark::Pair(..))),
        b'`' | b'~' => fence(rest, before),
        0xe2 if rest.starts_with('\u{25c1}') => tag(rest, '\u{25c1}', '\u{25b7}'),
        b'a' | b'A' => bare_channel(rest, before),
        b'h' | b'H' | b'.' | 0xe2 => phrase(rest),
        _ => None,
    }
}

/// `<name …>`, `</name>`, `<|name|>`, and the same in other brackets.
fn tag(rest: &str, open: char, close: char) -> Option<(Mark, usize)> {
    let inner = rest.strip_prefix(open)?;
    let end = inner
        .char_indices()
        .take_while(|(at, it)| *at < LONGEST && *it != open && *it != '\n')
        .find_map(|(at, it)| (it == close).then_some(at))?;
    let length = open.len_utf8() + end + close.len_utf8();
    let inner = &inner[..end];
    let bars = ['|', '\u{ff5c}'];
    if inner.starts_with(bars) {
        return token(inner.trim_matches(bars), &rest[length..]).map(|mark| (mark, length));
    }
    let (closes, name) = match inner.strip_prefix('/') {
        Some(name) => (true, name),
        None => (false, inner),
    };
    if !name.starts_with(|it: char| it.is_ascii_alphabetic()) || name.ends_with('/') {
        return None;
    }
    let words = name;
    let name = name.split_whitespace().next().map(plain)?;
    // MedGemma's tokens of reasoning have no names.
    let opens = REASONING.contains(&name.as_str()) || name == "unused94";
    if !opens && !is_markup(words) {
        return None;
    }
    let mark = match closes {
        false if opens => Mark::Opens(Kind::Tag),
        true if opens || name == "unused95" => Mark::Closes,
        true if name == "unused94" => return None,
        _ if name == "unused95" => Mark::Closes,
        _ if WRAPPERS.contains(&name.as_str()) => return None,
        false => Mark::Pair(name, Side::Opens),
        true => Mark::Pair(name, Side::Closes),
    };
    Some((mark, length))
}

/// Whether the inside of a tag is a name, and after it at most attributes such as `lang="en"`. Otherwise it is prose in
/// brackets.
pub(crate) fn is_markup(inside: &str) -> bool {
    let is_of_a_name = |it: char| it.is_ascii_alphanumeric() || "_-:.".contains(it);
    let mut rest = inside
        .trim_end_matches(['/', '|'])
        .trim_start_matches(is_of_a_name);
    loop {
        let attribute = rest.trim_start();
        if attribute.is_empty() {
            return true;
        }
        let value = attribute.trim_start_matches(is_of_a_name);
        let Some(value) = value
            .strip_prefix('=')
            .filter(|_| value.len() < attribute.len())
        else {
            return false;
        };
        let quote = value.chars().next().filter(|it| ['"', '\''].contains(it));
        rest = match quote {
            Some(quote) => match value[1..].split_once(quote) {
                Some((_, after)) => after,
                None => return false,
            },
            None => value.trim_start_matches(|it: char| !it.is_whitespace()),
        };
    }
}

/// A special token by its name: `begin_of_thought`, `END_THINKING`, `/think`, and the channels of gpt-oss.
fn token(name: &str, after: &str) -> Option<Mark> {
    let closes = name.starts_with('/');
    let name = plain(name);
    match name.as_str() {
        "channel" => {
            let answer = after.trim_start().starts_with("final");
            return Some(match answer {
                true => Mark::Ends(Kind::Channel),
                false => Mark::Opens(Kind::Channel),
            });
        }
        "end" | "start" | "return" | "call" => return Some(Mark::Ends(Kind::Channel)),
        _ => {}
    }
    let of = |prefixes: &[&str]| {
        let mut names = prefixes.iter().filter_map(|it| name.strip_prefix(it));
        names.any(|name| REASONING.contains(&name))
    };
    if of(&["endof", "end"]) || closes && of(&[""]) {
        return Some(Mark::Closes);
    }
    of(&["beginof", "begin", "startof", "start", ""]).then_some(Mark::Opens(Kind::Tag))
}

/// A fence of Markdown whose language is a name of reasoning, the end of a fence, or `~~` around struck text.
fn fence(rest: &str, before: &str) -> Option<(Mark, usize)> {
    let character = rest.chars().next()?;
    if before.ends_with(character) {
        return None;
    }
    let length = rest.len() - rest.trim_start_matches(character).len();
    if character == '~' && length == 2 {
        return Some((Mark::Pair("~~".to_owned(), Side::Either), length));
    }
    if length < 3 {
        return None;
    }
    let line = before.trim_end_matches([' ', '\t', '>']);
    if !line.is_empty() && !line.ends_with('\n') {
        return None;
    }
    let language = rest[length..].lines().next().unwrap_or_default().trim();
    if language.is_empty() {
        return Some((Mark::Ends(Kind::Fence), length));
    }
    let reasoning = language.len() < LONGEST && REASONING.contains(&plain(language).as_str());
    reasoning.then_some((Mark::Opens(Kind::Fence), length))
}

/// gpt-oss where the server has left out its special tokens: `analysis…assistantfinal…`.
fn bare_channel(rest: &str, before: &str) -> Option<(Mark, usize)> {
    const FINAL: &str = "assistantfinal";
    let is =
        |text: Option<&str>, wanted: &str| text.is_some_and(|it| it.eq_ignore_ascii_case(wanted));
    (is(before.get(.."analysis".len()), "analysis") && is(rest.get(..FINAL.len()), FINAL))
        .then_some((Mark::Closes, FINAL.len()))
}

fn phrase(rest: &str) -> Option<(Mark, usize)> {
    let is = |phrase: &&&str| {
        let found = rest.get(..phrase.len());
        found.is_some_and(|it| it.eq_ignore_ascii_case(phrase))
    };
    let phrase = PHRASES.iter().find(is)?;
    Some((Mark::Closes, phrase.len()))
}

/// A name in lower case, without separators and without what is before a colon.
fn plain(name: &str) -> String {
    let name = name.rsplit(':').next().unwrap_or_default();
    let kept = name.chars().filter(|it| it.is_alphanumeric());
    kept.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(text: &str) -> Option<Mark> {
        mark_at(text, "").map(|(mark, _)| mark)
    }

    #[test]
    fn every_marking_of_reasoning_in_common_use_is_known() {
        for (opens, closes) in [
            ("<think>", "</think>"),
            ("<thinking>", "</thinking>"),
            ("<Thought>", "</Thought>"),
            ("<reasoning effort=\"high\">", "</reasoning>"),
            ("<thinking>", "</thinking>"),
            ("<seed:think>", "</seed:think>"),
            ("<chain-of-thought>", "</chain-of-thought>"),
            ("[THINK]", "[/THINK]"),
            ("\u{25c1}think\u{25b7}", "\u{25c1}/think\u{25b7}"),
            ("<|begin_of_thought|>", "<|end_of_thought|>"),
            ("<|START_THINKING|>", "<|END_THINKING|>"),
            ("<|think|>", "<|/think|>"),
            (
                "<\u{ff5c}begin\u{2581}of\u{2581}thinking\u{ff5c}>",
                "<\u{ff5c}end\u{2581}of\u{2581}thinking\u{ff5c}>",
            ),
            ("<unused94>", "<unused95>"),
        ] {
            assert_eq!(mark(opens), Some(Mark::Opens(Kind::Tag)), "{opens}");
            assert_eq!(mark(closes), Some(Mark::Closes), "{closes}");
        }
        for channel in ["analysis<|message|>", "commentary to=x"] {
            let found = mark(&format!("<|channel|>{channel}"));
            assert_eq!(found, Some(Mark::Opens(Kind::Channel)));
        }
        let answer = mark("<|channel|>final<|message|>");
        assert_eq!(answer, Some(Mark::Ends(Kind::Channel)));
        assert_eq!(mark("```thinking\n"), Some(Mark::Opens(Kind::Fence)));
        assert_eq!(mark("Here is my response: a"), Some(Mark::Closes));
        let bare = mark_at("assistantfinal{", "analysisWe need");
        assert_eq!(bare, Some((Mark::Closes, 14)));
        for name in ["inner_monologue", "reflection", "draft", "del"] {
            let Some(Mark::Pair(name, Side::Opens)) = mark(&format!("<{name}>")) else {
                panic!("{name}");
            };
            assert!(Mark::discards(&name), "{name}");
        }
    }

    #[test]
    fn other_brackets_are_no_marking_or_a_pair_of_which_nothing_is_known() {
        for text in [
            "<answer>",
            "</s>",
            "<|im_end|>",
            "a < b",
            "< 3 and > 2",
            "[1]",
            "[analysis]",
            "```json",
            "~",
            "<br/>",
            "<3>",
        ] {
            assert_eq!(mark(text), None, "{text}");
        }
        let musing = Mark::Pair("musing".to_owned(), Side::Opens);
        assert_eq!(mark("<musing>"), Some(musing));
        assert!(!Mark::discards("musing"));
    }
}
