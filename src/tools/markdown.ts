import { cleanInline, hasWords } from './markdown-inline.ts'

/** A piece of a document that is never mixed with its neighbours. `text` of code includes its fences. */
export type Block =
  | { readonly kind: 'heading'; readonly depth: number; readonly text: string }
  | { readonly kind: 'text' | 'code'; readonly text: string }

/** Postgres stores no U+0000, and U+FFFF is our own mark. */
const UNSTORABLE = /[\0\uFFFF]/g
const FENCE = /^\s{0,12}(`{3,}|~{3,})\s*([\w+#.-]{0,40})/
const HEADING = /^ {0,3}(#{1,6})[ \t]+(\S.*)$/
/** A longer comment is text. */
const MAX_COMMENT_LINES = 500
/** Longer ones are no headings, and every passage below repeats them. */
const MAX_HEADING_LENGTH = 300
const UNDERLINE = /^ {0,3}(=+|-{2,})\s*$/
const HTML_HEADING = /^\s*<h([1-6])(?:\s[^>]*)?>(.*?)<\/h\1>\s*$/i
const HTML_LINK = /<a(?:\s[^<>]{0,2000})?>[^<]{0,500}(?:<(?!a\b)[^<]{0,500}){0,20}?<\/a>/gi
const TAG_OR_ENTITY = /<[^<>]*>|&\w+;/g
const RULE = /^ {0,3}(?:[-=*_]\s?){2,}$/
const DEFINITION = /^ {0,3}\[([^\]]+)\]:\s+\S/
const LINK_ITEM = /^\s*(?:>\s*)?(?:[-*+]|\d+[.)])\s+\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])?[^\p{L}\p{N}]*$/u
const LICENCE =
  /^\W*(?:licen[sc]ed under|(?:re)?distributed under|released under|copyright (?:\(c\)|©|\d)|permission is hereby granted|the above copyright notice|the software is provided|redistribution and use in)/i
const MDX_STATEMENT = /^(?:import|export)\s.*(?:from\s+['"]|=|['"]$)/

/**
 * Reads Markdown into blocks and leaves out what is no prose: front matter, comments, link definitions, images and
 * badges, lists of nothing but links, HTML tags, targets of links, licence texts, and the imports of MDX.
 */
export function parseMarkdown(text: string, format: 'md' | 'mdx' = 'md'): readonly Block[] {
  const lines = withoutFrontMatter(text.replaceAll(UNSTORABLE, '').replaceAll(/\r\n?/g, '\n')).split('\n')
  const definitions = new Set(lines.flatMap((line) => DEFINITION.exec(line)?.[1]?.toLowerCase() ?? []))
  const blocks: Block[] = []
  let index = 0
  while (index < lines.length) {
    const line = lines[index] ?? ''
    if (line.trim() === '') {
      index += 1
      continue
    }
    const read = FENCE.test(line) ? readCode : line.trimStart().startsWith('<!--') ? readComment : readText
    const { block, next } = read(lines, index)
    if (block?.kind === 'code') blocks.push(block)
    else if (block) blocks.push(...clean(block, definitions, format))
    index = next
  }
  return blocks
}

function withoutFrontMatter(text: string): string {
  return /^\uFEFF?---\n[\s\S]*?\n---[ \t]*(?:\n|$)/.test(text)
    ? text.replace(/^\uFEFF?---\n[\s\S]*?\n---[ \t]*(?:\n|$)/, '')
    : text.replace(/^\uFEFF/, '')
}

interface Reading {
  readonly block?: Block
  readonly next: number
}

/** Every code block leaves with the same marks, at the start of a line: ranking tells prose from code by them. */
function readCode(lines: readonly string[], start: number): Reading {
  const opening = lines[start] ?? ''
  const [, marks = '```', language = ''] = FENCE.exec(opening) ?? []
  const indent = opening.length - opening.trimStart().length
  const isEnd = (line: string): boolean => {
    const trimmed = line.trim()
    return trimmed.startsWith(marks) && /^(`+|~+)$/.test(trimmed)
  }
  let end = start + 1
  while (end < lines.length && !isEnd(lines[end] ?? '')) end += 1
  const body = lines
    .slice(start + 1, end)
    .map((line) => line.slice(Math.min(indent, line.length - line.trimStart().length)).trimEnd())
    .map((line) => (line.startsWith('```') ? ` ${line}` : line))
  const next = end + 1
  if (!body.some(hasWords)) return { next }
  return { block: { kind: 'code', text: `\`\`\`${language}\n${body.join('\n')}\n\`\`\`` }, next }
}

function readComment(lines: readonly string[], start: number): Reading {
  const isShort = lines.slice(start, start + MAX_COMMENT_LINES).findIndex((line) => line.includes('-->'))
  const end = isShort < 0 ? -1 : start + isShort
  // A comment that never ends is text: dropping the rest of the document would hide it.
  return end < 0 ? readText(lines, start) : { next: end + 1 }
}

function readText(lines: readonly string[], start: number): Reading {
  const line = lines[start] ?? ''
  const heading = readHeading(line)
  if (heading) return { block: heading, next: start + 1 }
  let next = start + 1
  while (next < lines.length && !startsAnew(lines[next] ?? '')) next += 1
  const underline = UNDERLINE.exec(lines[next] ?? '')
  const isHeading = underline && next === start + 1 && hasWords(line) && !/^\s*(?:[-*+>|]|\d+[.)])\s?/.test(line)
  if (isHeading && line.length <= MAX_HEADING_LENGTH) {
    return {
      block: { kind: 'heading', depth: underline[1]?.startsWith('=') ? 1 : 2, text: line.trim() },
      next: next + 1,
    }
  }
  return { block: { kind: 'text', text: lines.slice(start, next).join('\n') }, next }
}

function readHeading(line: string): Block | undefined {
  if (line.length > MAX_HEADING_LENGTH) return undefined
  const [, marks, text = ''] = HEADING.exec(line) ?? []
  if (marks !== undefined) return { kind: 'heading', depth: marks.length, text: withoutClosingMarks(text) }
  const [, depth, html = ''] = HTML_HEADING.exec(line) ?? []
  return depth === undefined ? undefined : { kind: 'heading', depth: Number(depth), text: html }
}

/** `Title ##` is the heading "Title"; `C#` stays what it is. */
function withoutClosingMarks(text: string): string {
  const ended = text.trimEnd()
  return ended.replace(/(?:^|[ \t])#+$/, '').trimEnd()
}

function startsAnew(line: string): boolean {
  return (
    line.trim() === '' ||
    FENCE.test(line) ||
    readHeading(line) !== undefined ||
    UNDERLINE.test(line) ||
    line.trimStart().startsWith('<!--')
  )
}

function clean(block: Block, definitions: ReadonlySet<string>, format: 'md' | 'mdx'): readonly Block[] {
  const text = block.kind === 'heading' ? block.text : withoutNoise(block.text, format)
  const cleaned = cleanInline(text, definitions)
  if (!hasWords(cleaned) || (block.kind === 'text' && LICENCE.test(cleaned))) return []
  return [{ ...block, text: block.kind === 'heading' ? cleaned.replaceAll(/\s+/g, ' ').trim() : cleaned }]
}

function withoutNoise(text: string, format: 'md' | 'mdx'): string {
  const lines = text
    .split('\n')
    .filter((line) => !DEFINITION.test(line) && !RULE.test(line) && !(format === 'mdx' && MDX_STATEMENT.test(line)))
  return isOnlyLinks(lines) ? '' : lines.join('\n')
}

/** A table of contents, or a row of links in HTML. */
function isOnlyLinks(lines: readonly string[]): boolean {
  if (lines.every((line) => LINK_ITEM.test(line))) return true
  const text = lines.join('\n')
  return text.trimStart().startsWith('<') && !hasWords(text.replaceAll(HTML_LINK, '').replaceAll(TAG_OR_ENTITY, ''))
}
