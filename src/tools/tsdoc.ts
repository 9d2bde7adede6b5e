/** One documented symbol of a declaration file. */
export interface DocumentedSymbol {
  /** With the names it stands in: `SelectQueryBuilder.where`. */
  readonly name: string
  /** The start of its declaration, on one line. */
  readonly declaration: string
  /** The comment as Markdown. */
  readonly text: string
}

const MAX_DECLARATION_LENGTH = 240
const HIDDEN = /@(?:internal|hidden|ignore|private)\b|sourceMappingURL|eslint-disable|^\s*@module\b/
const CONTAINER = /(?:class|interface|namespace|module|enum|type)\s+["']?([\w$./@-]+)(?=[^;]*\{$)/g
const NEXT_DECLARATION = /\n\s*(?:export|declare|interface|type|function|class|namespace|const)\s/
const DECLARED =
  /^(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:const\s+enum|class|interface|function|const|let|var|type|enum|namespace)\s+([\w$]+)/
const MEMBER = /^(?:(?:public|protected|static|readonly|abstract|override|declare|async|get|set)\s+)*\[?["']?([\w$-]+)/
const MODIFIER_HIDDEN = /^(?:private|#|static\s+private|import\b|export\s*[*{])/

/**
 * Reads the documentation comments of a declaration file with the symbols they belong to, without a compiler: it
 * follows braces, strings and comments, which is all that declarations need. Symbols marked internal are left out.
 */
export function extractTsdoc(text: string): readonly DocumentedSymbol[] {
  const symbols: DocumentedSymbol[] = []
  const containers: (string | undefined)[] = []
  let header = ''
  let comment: string | undefined
  for (const token of tokens(text)) {
    if (token.startsWith('/*')) {
      if (token.startsWith('/**') && token.length > '/***/'.length) comment = token
      if (isStatementEnd(header)) header = ''
      continue
    }
    if (comment !== undefined && header.trim() === '') {
      const symbol = toSymbol(comment, token, containers)
      if (token.trim() !== '') comment = undefined
      if (symbol) symbols.push(symbol)
    }
    const last = token.at(-1)
    header += token
    if (last === '{') containers.push(containerName(header))
    if (last === '}') containers.pop()
    if (last === '{' || last === '}' || last === ';') header = ''
  }
  return symbols
}

/** Without semicolons, a line end outside of parentheses is all that parts a member from the comment of the next. */
function isStatementEnd(header: string): boolean {
  return /\n\s*$/.test(header) && header.split('(').length === header.split(')').length
}

/**
 * The pieces of a file: comments whole, and code up to and including the next brace or semicolon. Concatenated they are
 * the file without its line comments.
 */
function* tokens(text: string): Generator<string> {
  const pattern = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|[{};]/g
  let code = ''
  let from = 0
  for (const match of text.matchAll(pattern)) {
    code += text.slice(from, match.index)
    from = match.index + match[0].length
    if (match[0].startsWith('/*')) {
      if (code.trim() !== '') yield code
      code = ''
      yield match[0]
    } else if (/^[{};]$/.test(match[0])) {
      yield code + match[0]
      code = ''
    } else if (!match[0].startsWith('//')) {
      code += match[0]
    }
  }
  yield code + text.slice(from)
}

function containerName(header: string): string | undefined {
  return (
    Array.from(header.matchAll(CONTAINER)).at(-1)?.[1] ??
    /^\s*(?:readonly\s+)?["']?([\w$-]+)["']?\??\s*:[^;]*\{$/.exec(header)?.[1]
  )
}

function toSymbol(
  comment: string,
  code: string,
  containers: readonly (string | undefined)[],
): DocumentedSymbol | undefined {
  const [first = ''] = code.trim().split(NEXT_DECLARATION)
  const declaration = first
    .replaceAll(/\s+/g, ' ')
    .replace(/[{};]$/, '')
    .trim()
  const name = DECLARED.exec(declaration)?.[1] ?? MEMBER.exec(declaration)?.[1]
  if (name === undefined || HIDDEN.test(comment) || MODIFIER_HIDDEN.test(declaration)) return undefined
  const text = commentText(comment)
  if (text === '') return undefined
  const outer = containers.filter((each) => each !== undefined && !/[./@-]/.test(each))
  return {
    name: [...outer, name].join('.'),
    declaration:
      declaration.length > MAX_DECLARATION_LENGTH ? `${declaration.slice(0, MAX_DECLARATION_LENGTH)} …` : declaration,
    text,
  }
}

/** The comment as Markdown: links become their text, tags become the start of a sentence. Examples keep their fences. */
function commentText(comment: string): string {
  return comment
    .slice('/**'.length, -'*/'.length)
    .split('\n')
    .map((line) => line.replace(/^\s*\*? ?/, '').trimEnd())
    .join('\n')
    .replaceAll(
      /\{@(?:link|linkcode|linkplain|inheritDoc)\s+([^}|\s]+)\s*\|?\s*([^}]*)\}/g,
      (_all, target: string, label: string) => (label.trim() === '' ? `\`${target}\`` : label.trim()),
    )
    .replaceAll(/^@example\b[ \t]*/gm, 'Example: ')
    .replaceAll(/^@(?:param|typeParam|template)\s+(?:\{[^}]*\}\s*)?([\w.[\]$]+)\s*[-:]?[ \t]*/gm, '- `$1`: ')
    .replaceAll(/^@returns?[ \t]*/gm, 'Returns: ')
    .replaceAll(/^@throws?[ \t]*/gm, 'Throws: ')
    .replaceAll(/^@default(?:Value)?[ \t]*/gm, 'Default: ')
    .replaceAll(/^@(?:see|remarks|description|summary)\b[ \t]*/gm, '')
    .replaceAll(/^@(deprecated|experimental|beta|alpha)\b[ \t]*/gm, (_all, tag: string) => `${tag}: `)
    .replaceAll(/^@[a-zA-Z]+.*$/gm, '')
    .trim()
}

/** The symbols as a Markdown document with a section each, to be cut into passages like any other. */
export function toMarkdown(symbols: readonly DocumentedSymbol[]): string {
  return symbols
    .map(
      ({ name, declaration, text }) => `## \`${name}\`\n\n\`\`\`ts\n${declaration}\n\`\`\`\n\n${demoteHeadings(text)}`,
    )
    .join('\n\n')
}

/** Headings inside a comment stand below its symbol. */
function demoteHeadings(text: string): string {
  return text.replaceAll(/^(#{1,4}) (?=\S)/gm, (_all, marks: string) => `##${marks} `)
}
