/** A paragraph or list item, its lines joined by single spaces. */
export interface Block {
  readonly text: string
  readonly kind: 'prose' | 'item'
  /** The headings the block stands under, outermost first. */
  readonly headings: readonly string[]
  /**
   * Offsets in `text` where a line began whose marker (`>`, `*` of a doc comment) was dropped: a quotation across such
   * a place would not be verbatim.
   */
  readonly seams: readonly number[]
}

const FENCE = /^\s*(?:>\s*)?(```|~~~)/u
const HEADING = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$/u
const ITEM = /^(\s*)(?:[-*+•]|\d{1,3}[.)])\s+(.*)$/u
const QUOTE_MARK = /^\s*>\s?/u
const COMMENT_MARK = /^\s*(?:\/\*\*|\*\/|\*(?!\*)(?=\s|$))\s?/u
const RULE = /^\s*(?:[-=*_]\s*){3,}$/u
const TABLE_ROW = /^\s*\||\|\s*$|^[^`]*\S\s\|\s\S[^`]*\s\|\s/u
const LINK_TARGET = /^\s*\[[^\]]+\]:\s/u
const TAG_LINE = /^\s*<\/?[a-z!][^>]*>(?:.*<\/[a-z][^>]*>)?\s*$/iu
const INDENTED_CODE = /^(?: {4}|\t)/u

interface Draft {
  kind: 'prose' | 'item'
  text: string
  seams: number[]
}

/** Reads Markdown, doc comments or plain text into the blocks a person would read as text; code and tables are left out. */
export function toBlocks(text: string): readonly Block[] {
  const blocks: Block[] = []
  const headings: { readonly level: number; readonly text: string }[] = []
  let draft: Draft | null = null
  let inList = false
  let afterBlank = true
  let wasMarked = false
  const isComment = /^\s*\/\*\*/mu.test(text)

  const close = (): void => {
    if (draft !== null && draft.text !== '') {
      blocks.push({ ...draft, headings: headings.map((heading) => heading.text) })
    }
    draft = null
  }
  const add = (line: string, marked: boolean): void => {
    const clean = line.replaceAll(/\s+/gu, ' ').trim()
    if (draft === null) {
      draft = { kind: 'prose', text: clean, seams: [] }
      return
    }
    if (marked) draft.seams.push(draft.text.length)
    draft.text = `${draft.text} ${clean}`
  }

  for (const raw of withoutFences(text.split(/\r?\n/u))) {
    const mark = isComment ? COMMENT_MARK : QUOTE_MARK
    const marked = mark.test(raw)
    const line = marked ? raw.replace(mark, '') : raw
    if (marked && !wasMarked) close()
    wasMarked = marked
    const heading = HEADING.exec(line)
    if (heading !== null) {
      close()
      const level = heading[1]?.length ?? 1
      while ((headings.at(-1)?.level ?? 0) >= level) headings.pop()
      headings.push({ level, text: (heading[2] ?? '').replaceAll(/<[^>]*>/gu, '') })
      inList = false
      afterBlank = true
      continue
    }
    const isBlank: boolean = line.trim() === ''
    const isCode: boolean = INDENTED_CODE.test(line) && afterBlank && !inList
    if (isBlank || isCode || isNoise(line)) {
      close()
      afterBlank = isBlank || (isCode && afterBlank)
      continue
    }
    const item = ITEM.exec(line)
    if (item !== null) {
      close()
      inList = true
      draft = { kind: 'item', text: (item[2] ?? '').replaceAll(/\s+/gu, ' ').trim(), seams: [] }
    } else {
      if (afterBlank && !/^\s/u.test(line)) inList = false
      add(line, marked)
    }
    afterBlank = false
  }
  close()
  return blocks
}

function isNoise(line: string): boolean {
  return RULE.test(line) || TABLE_ROW.test(line) || LINK_TARGET.test(line) || TAG_LINE.test(line)
}

/**
 * Drops fenced code. A passage is often cut out of a page, so its first fence may be a closing one: with an odd number
 * of fences the lines before a bare first fence are code, when they look like it.
 */
function withoutFences(lines: readonly string[]): readonly string[] {
  const fences = lines.flatMap((line, index) => (FENCE.test(line) ? [index] : []))
  const first = fences[0]
  let inside = false
  if (first !== undefined && fences.length % 2 === 1 && /^\s*(?:>\s*)?(?:```|~~~)\s*$/u.test(lines[first] ?? '')) {
    const before = lines.slice(0, first)
    inside = before.filter((line) => /[;{}()=]|^\s*\/\//u.test(line)).length * 2 > before.length
  }
  return lines.map((line) => {
    if (FENCE.test(line)) {
      inside = !inside
      return ''
    }
    return inside ? '' : line
  })
}
