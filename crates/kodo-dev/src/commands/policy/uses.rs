//! Which crates a source file names, by its syntax tree: `use` items, paths, attributes, and what is inside macro calls.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A crate is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    /// As it is written: with underscores.
    pub(super) name: String,
    pub(super) line: usize,
    /// By `pub use`: what it names becomes part of this crate.
    pub(super) passed_on: bool,
}

/// Every first segment of a path in a file, each with the first line that has it. Most are modules and types; the
/// caller knows which are crates.
pub(super) fn of(text: &str) -> syn::Result<Vec<Use>> {
    let file = syn::parse_file(text)?;
    let mut finder = Finder::default();
    finder.visit_file(&file);
    finder.uses.sort_by(|one, other| {
        (&one.name, other.passed_on, one.line).cmp(&(&other.name, one.passed_on, other.line))
    });
    finder.uses.dedup_by(|one, other| one.name == other.name);
    Ok(finder.uses)
}

#[derive(Default)]
struct Finder {
    uses: Vec<Use>,
}

impl Finder {
    fn found(&mut self, name: &proc_macro2::Ident, passed_on: bool) {
        self.uses.push(Use {
            name: name.to_string().trim_start_matches("r#").to_owned(),
            line: name.span().start().line,
            passed_on,
        });
    }

    /// The first segments of a `use` tree.
    fn tree(&mut self, tree: &syn::UseTree, passed_on: bool) {
        match tree {
            syn::UseTree::Path(path) => self.found(&path.ident, passed_on),
            syn::UseTree::Name(name) => self.found(&name.ident, passed_on),
            syn::UseTree::Rename(rename) => self.found(&rename.ident, passed_on),
            syn::UseTree::Group(group) => {
                for item in &group.items {
                    self.tree(item, passed_on);
                }
            }
            syn::UseTree::Glob(_) => {}
        }
    }

    /// In a macro call there are only tokens: a name before `::` that no `::` stands before begins a path.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let colons = |index: usize| {
            let at = |index: usize| matches!(tokens.get(index), Some(TokenTree::Punct(sign)) if sign.as_char() == ':');
            at(index) && at(index + 1)
        };
        for (index, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(name) if colons(index + 1) => {
                    let continues = index >= 2 && colons(index - 2);
                    // `::axum::x` begins with the colons; `a::axum::x` has a name before them.
                    let after_a_name =
                        continues && index >= 3 && matches!(tokens[index - 3], TokenTree::Ident(_));
                    if !after_a_name {
                        self.found(name, false);
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, matches!(item.vis, syn::Visibility::Public(_)));
        visit::visit_item_use(self, item);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.found(&item.ident, matches!(item.vis, syn::Visibility::Public(_)));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // One segment alone is a local name or a macro in scope; of a crate one needs something inside it.
        if path.segments.len() > 1
            && let Some(first) = path.segments.first()
        {
            self.found(&first.ident, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}
