//! Reads a source tree into facts: which paths a file names, which lines are code, how long its functions are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, Span, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A source tree without its test modules.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// What the rules want to know of one file.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// Relative to the root of the tree, with `/`.
    pub(crate) path: String,
    /// Its name at the top of the tree: `turn` for `turn/server.rs`, `cli` for `cli.rs`.
    pub(crate) module: String,
    /// Every path outside test code, aliases and `super` resolved, as segments; `crate` first for our own.
    pub(crate) names: Vec<Name>,
    /// Methods called, macros' bodies included.
    pub(crate) methods: Vec<(usize, String)>,
    /// Functions with their line and their lines of code.
    pub(crate) functions: Vec<(usize, String, usize)>,
    /// Lines of code.
    pub(crate) lines: usize,
    /// Lines with the word `unsafe`, test code included.
    pub(crate) unsafes: Vec<usize>,
    /// Lines of the doc comment at the top of the file.
    pub(crate) opening: usize,
    /// `mod` items: line and name.
    pub(crate) modules: Vec<(usize, String)>,
}

/// A path that the code names, on its line.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
    /// `use path::*`.
    pub(crate) glob: bool,
}

impl Tree {
    /// Reads every `.rs` file under `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut paths = Vec::new();
        walk(root, &mut paths);
        let parsed: Vec<(PathBuf, syn::File, String)> = paths
            .into_iter()
            .map(|path| {
                let text = fs::read_to_string(&path).unwrap();
                let syntax =
                    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                (path, syntax, text)
            })
            .collect();
        // `#[cfg(test)] mod simulation;` makes simulation.rs and simulation/ test code.
        let tests: BTreeSet<PathBuf> = parsed
            .iter()
            .flat_map(|(path, syntax, _)| {
                let folder = folder_of_children(path);
                syntax.items.iter().filter_map(move |item| match item {
                    syn::Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => {
                        Some(folder.join(module.ident.to_string()))
                    }
                    _ => None,
                })
            })
            .collect();
        let files = parsed
            .iter()
            .filter(|(path, ..)| {
                !tests.iter().any(|test| path.starts_with(test) || path.with_extension("") == *test)
            })
            .map(|(path, syntax, text)| File::read(path.strip_prefix(root).unwrap(), syntax, text))
            .collect();
        Self { files }
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The folder in which the files of a file's `mod` items lie.
fn folder_of_children(path: &Path) -> PathBuf {
    match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => path.parent().unwrap().to_path_buf(),
        _ => path.with_extension(""),
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let mut test = false;
        if attribute.path().is_ident("cfg") {
            let _ = attribute.parse_nested_meta(|meta| {
                test |= meta.path.is_ident("test");
                Ok(())
            });
        }
        test
    })
}

impl File {
    fn read(path: &Path, syntax: &syn::File, text: &str) -> Self {
        let segments: Vec<String> =
            path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let mut home: Vec<String> = segments.clone();
        if matches!(home.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            home.pop();
        }
        let mut aliases = Aliases { home: home.clone(), ..Aliases::default() };
        aliases.visit_file(syntax);
        let mut reader =
            Reader { home, aliases: &aliases.known, file: Self::default(), code: BTreeSet::new() };
        let tokens: TokenStream = text.parse().unwrap();
        code_lines(tokens.clone(), &mut reader.code);
        for range in test_ranges(syntax) {
            reader.code.retain(|line| !range.contains(line));
        }
        reader.visit_file(syntax);
        let lines = reader.code.len();
        let mut file = reader.file;
        unsafes(tokens, &mut file.unsafes);
        file.path = path.to_string_lossy().replace('\\', "/");
        file.module = segments.first().cloned().unwrap_or_default();
        file.lines = lines;
        file.opening = text.lines().take_while(|line| line.starts_with("//!")).count();
        file
    }
}

/// First pass: what each imported name stands for.
#[derive(Default)]
struct Aliases {
    home: Vec<String>,
    known: BTreeMap<String, Vec<String>>,
}

impl<'ast> Visit<'ast> for Aliases {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flatten(&item.tree, &mut Vec::new(), &mut |path, alias, _, _| {
            if let Some(alias) = alias {
                self.known.insert(alias, resolve(path, &self.home, &BTreeMap::new()));
            }
        });
    }
}

/// Calls `leaf` with the path, the local name, whether it is a glob, and the place of every leaf of a `use` tree.
fn flatten(
    tree: &syn::UseTree,
    prefix: &mut Vec<String>,
    leaf: &mut impl FnMut(Vec<String>, Option<String>, bool, Span),
) {
    match tree {
        syn::UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, leaf);
            prefix.pop();
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, prefix, leaf)),
        syn::UseTree::Name(name) => {
            let mut path = prefix.clone();
            if name.ident != "self" {
                path.push(name.ident.to_string());
            }
            let alias = path.last().cloned();
            leaf(path, alias, false, name.span());
        }
        syn::UseTree::Rename(rename) => {
            let mut path = prefix.clone();
            if rename.ident != "self" {
                path.push(rename.ident.to_string());
            }
            leaf(path, Some(rename.rename.to_string()), false, rename.span());
        }
        syn::UseTree::Glob(glob) => leaf(prefix.clone(), None, true, glob.span()),
    }
}

/// Turns `super`, `self`, aliases and the library's name (in the binary) into a path from `crate` or from a crate.
fn resolve(path: Vec<String>, home: &[String], aliases: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut at = home.to_vec();
    let mut rest = path.as_slice();
    match rest.first().map(String::as_str) {
        Some("self" | "super") => {
            while let Some((first @ ("self" | "super"), others)) =
                rest.split_first().map(|(first, others)| (first.as_str(), others))
            {
                if first == "super" {
                    at.pop();
                }
                rest = others;
            }
            let mut full = vec!["crate".to_owned()];
            full.extend(at);
            full.extend_from_slice(rest);
            full
        }
        Some("passerelle") => {
            let mut full = vec!["crate".to_owned()];
            full.extend_from_slice(rest.get(1..).unwrap_or_default());
            full
        }
        Some(first) => match aliases.get(first) {
            Some(target) => target.iter().chain(rest.get(1..).unwrap_or_default()).cloned().collect(),
            None => path,
        },
        None => path,
    }
}

/// Second pass: every name, method and function.
struct Reader<'a> {
    home: Vec<String>,
    aliases: &'a BTreeMap<String, Vec<String>>,
    file: File,
    code: BTreeSet<usize>,
}

impl Reader<'_> {
    fn name(&mut self, line: usize, path: Vec<String>, glob: bool) {
        let path = resolve(path, &self.home, self.aliases);
        if !path.is_empty() {
            self.file.names.push(Name { line, path, glob });
        }
    }

    fn function(&mut self, name: &syn::Ident, span: Span) {
        let lines = self.code.range(span.start().line..=span.end().line).count();
        self.file.functions.push((name.span().start().line, name.to_string(), lines));
    }

    /// Names inside a macro's body, which is tokens, not syntax.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons, mut dot) = (0, 0, false);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons < 2 {
                        self.flush(line, &mut path);
                        line = ident.span().start().line;
                    }
                    if dot {
                        self.file.methods.push((ident.span().start().line, ident.to_string()));
                    } else {
                        path.push(ident.to_string());
                    }
                    (colons, dot) = (0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons = if punct.spacing() == Spacing::Joint || colons == 1 { colons + 1 } else { 0 };
                    dot = false;
                }
                other => {
                    self.flush(line, &mut path);
                    colons = 0;
                    dot = matches!(&other, TokenTree::Punct(punct) if punct.as_char() == '.');
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.flush(line, &mut path);
    }

    fn flush(&mut self, line: usize, path: &mut Vec<String>) {
        // One word in a macro's body may be anything; it is a name only when an import says so.
        if path.len() > 1 || path.first().is_some_and(|word| self.aliases.contains_key(word)) {
            let path = std::mem::take(path);
            self.name(line, path, false);
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut |path, _, glob, span| {
            leaves.push((span.start().line, path, glob));
        });
        for (line, path, glob) in leaves {
            // An import names a crate or a module, never another import.
            let path = resolve(path, &self.home, &BTreeMap::new());
            self.file.names.push(Name { line, path, glob });
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.name(item.span().start().line, vec![item.ident.to_string()], false);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.file.modules.push((item.ident.span().start().line, item.ident.to_string()));
        self.home.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.home.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.span().start().line;
        if path.leading_colon.is_some() {
            self.file.names.push(Name { line, path: segments, glob: false });
        } else {
            self.name(line, segments, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.file.methods.push((call.method.span().start().line, call.method.to_string()));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig.ident, item.span());
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig.ident, item.span());
        visit::visit_trait_item_fn(self, item);
    }
}

fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The lines of items under `#[cfg(test)]`, at the top of the file or inside an `impl`.
fn test_ranges(syntax: &syn::File) -> Vec<std::ops::RangeInclusive<usize>> {
    struct Ranges(Vec<std::ops::RangeInclusive<usize>>);
    impl<'ast> Visit<'ast> for Ranges {
        fn visit_item(&mut self, item: &'ast syn::Item) {
            if is_test(attributes_of(item)) {
                self.0.push(item.span().start().line..=item.span().end().line);
            } else {
                visit::visit_item(self, item);
            }
        }
        fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
            if is_test(&item.attrs) {
                self.0.push(item.span().start().line..=item.span().end().line);
            }
        }
    }
    let mut ranges = Ranges(Vec::new());
    ranges.visit_file(syntax);
    ranges.0
}

/// Calls `each` for every token that is not part of a doc comment.
fn each_token(tokens: TokenStream, each: &mut impl FnMut(&TokenTree)) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        if matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#') {
            if matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '!') {
                tokens.next();
            }
            if matches!(tokens.peek(), Some(TokenTree::Group(group)) if is_doc(group)) {
                tokens.next();
                continue;
            }
        }
        each(&token);
        if let TokenTree::Group(group) = token {
            each_token(group.stream(), each);
        }
    }
}

fn is_doc(group: &proc_macro2::Group) -> bool {
    group.delimiter() == Delimiter::Bracket
        && matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(ident)) if ident == "doc")
}

/// The lines that hold at least one token: not blank, not a comment.
fn code_lines(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    each_token(tokens, &mut |token| match token {
        TokenTree::Group(group) => {
            lines.insert(group.span_open().start().line);
            lines.insert(group.span_close().end().line);
        }
        other => lines.extend(other.span().start().line..=other.span().end().line),
    });
}

fn unsafes(tokens: TokenStream, lines: &mut Vec<usize>) {
    each_token(tokens, &mut |token| {
        if matches!(token, TokenTree::Ident(ident) if ident == "unsafe") {
            lines.push(token.span().start().line);
        }
    });
}
