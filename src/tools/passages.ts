import type { SourceDocument, SplitDocument } from '#contracts/corpus.ts'
import { type Block, parseMarkdown } from './markdown.ts'

/** Most characters of a passage: two or three paragraphs, and twenty of them fit into a prompt. */
export const MAX_PASSAGE_LENGTH = 1200
/** Sections shorter than this are joined with the sections that follow. */
const MIN_LENGTH = 600
const MAX_TITLE_LENGTH = 200
const SEPARATOR = ' › '
const LICENCE_HEADING = /^(?:the )?(?:mit |isc |bsd |apache )?(?:licen[sc]e|copyright)(?: notice)?$/i

interface Section {
  /** Headings above its text, outermost first, without the title of the document. */
  readonly trail: readonly string[]
  readonly blocks: readonly Block[]
}

/**
 * Cuts a Markdown document into passages along its headings and paragraphs. The same text gives the same passages.
 * What `parseMarkdown` calls noise, sections about the licence and headings without text are left out; everything else
 * is in exactly one passage, in its order.
 */
export function splitDocument(document: SourceDocument): SplitDocument {
  const blocks = parseMarkdown(document.text, document.source.endsWith('.mdx') ? 'mdx' : 'md')
  const { title, headings } = titleOf(document, blocks)
  const sections = toSections(blocks, headings).filter((section) => !LICENCE_HEADING.test(section.trail.at(-1) ?? ''))
  return { source: document.source, title, passages: toGroups(sections).flatMap(toPassages) }
}

type Heading = Extract<Block, { readonly kind: 'heading' }>

/**
 * The heading a document opens with. Many open with the project's name and then their own: when all other headings stand
 * below those two, both make the title.
 */
function titleOf(
  document: SourceDocument,
  blocks: readonly Block[],
): { readonly title: string; readonly headings: ReadonlySet<Block> } {
  const headings = blocks.filter((block) => block.kind === 'heading')
  const [first, second, ...others] = headings
  const opens = first !== undefined && (blocks[0] === first || first.depth === 1)
  const isPair =
    second !== undefined && blocks[1] === second && others.every((other) => other.depth > second.depth) && opens
  const own = (isPair ? [first, second] : opens ? [first] : []).filter(
    (heading) => document.title === undefined || document.title === heading.text,
  )
  const name = document.source.split('/').at(-1) ?? document.source
  const title = document.title ?? (own.map((heading) => heading.text).join(SEPARATOR) || name)
  return { title: Array.from(title).slice(0, MAX_TITLE_LENGTH).join(''), headings: new Set(own) }
}

/** @param headings those that make the title: no passage repeats them */
function toSections(blocks: readonly Block[], headings: ReadonlySet<Block>): readonly Section[] {
  const sections: { trail: string[]; blocks: Block[] }[] = []
  let open: readonly Heading[] = []
  let current: Block[] | undefined
  for (const block of blocks) {
    if (block.kind === 'heading') {
      open = [...open.filter((each) => each.depth < block.depth), block]
      current = undefined
      continue
    }
    if (!current) {
      current = []
      sections.push({ trail: open.filter((each) => !headings.has(each)).map((each) => each.text), blocks: current })
    }
    current.push(block)
  }
  return sections
}

/** Joins short neighbours, as long as they stay one passage together. */
function toGroups(sections: readonly Section[]): readonly (readonly Section[])[] {
  const groups: Section[][] = []
  for (const section of sections) {
    const last = groups.at(-1)
    const joined = last ? textOf([...last, section]).length : 0
    if (last && textOf(last).length < MIN_LENGTH && joined <= MAX_PASSAGE_LENGTH) last.push(section)
    else groups.push([section])
  }
  return groups
}

function textOf(group: readonly Section[]): string {
  const shared = sharedTrail(group)
  const parts = group.flatMap((section) => {
    const name = section.trail.slice(shared.length).join(SEPARATOR)
    return [...(name === '' ? [] : [`### ${name}`]), ...section.blocks.map((block) => block.text)]
  })
  return parts.join('\n\n')
}

function sharedTrail(group: readonly Section[]): readonly string[] {
  const [first, ...others] = group
  if (!first) return []
  const length = first.trail.findIndex((name, index) => others.some((other) => other.trail[index] !== name))
  return length < 0 ? first.trail : first.trail.slice(0, length)
}

function toPassages(group: readonly Section[]): SplitDocument['passages'] {
  const heading = sharedTrail(group).join(SEPARATOR)
  const text = textOf(group)
  const texts = text.length <= MAX_PASSAGE_LENGTH ? [text] : packBlocks(group.flatMap((section) => section.blocks))
  return texts.map((each) => (heading === '' ? { text: each } : { heading, text: each }))
}

/** Fills passages evenly, so that none is left with the last sentence. */
function packBlocks(blocks: readonly Block[]): readonly string[] {
  const pieces = blocks.flatMap(toPieces)
  const total = pieces.reduce((sum, piece) => sum + piece.length + 2, 0)
  return pack(pieces, {
    separator: '\n\n',
    aim: total / Math.ceil(total / MAX_PASSAGE_LENGTH),
    limit: MAX_PASSAGE_LENGTH,
  })
}

function toPieces(block: Block): readonly string[] {
  if (block.text.length <= MAX_PASSAGE_LENGTH) return [block.text]
  if (block.kind !== 'code') return cut(block.text, MAX_PASSAGE_LENGTH, TEXT_SEPARATORS)
  const lines = block.text.split('\n')
  const [opening = '```', ...body] = lines.slice(0, -1)
  const room = MAX_PASSAGE_LENGTH - opening.length - '\n\n```'.length
  return cut(body.join('\n'), room, ['\n', ' ']).map((part) => `${opening}\n${part}\n\`\`\``)
}

const TEXT_SEPARATORS = ['\n', '. ', ' '] as const

/** Cuts a text at the first separator that makes its parts fit, and packs the parts together again. */
function cut(text: string, limit: number, separators: readonly string[]): readonly string[] {
  if (text.length <= limit) return [text]
  const [separator, ...rest] = separators
  if (separator === undefined) return slice(text, limit)
  const parts = text.split(separator)
  const ended = parts.map((part, index) => (index < parts.length - 1 ? part + separator.trim() : part))
  const joint = separator.trim() === '' ? separator : ' '
  return pack(
    ended.flatMap((part) => cut(part, limit, rest)),
    { separator: joint, aim: limit, limit },
  )
}

/** The last resort for a text without any space: whole code points. */
function slice(text: string, limit: number): readonly string[] {
  const parts: string[] = []
  let current = ''
  for (const character of text) {
    if (current.length + character.length > limit) {
      parts.push(current)
      current = ''
    }
    current += character
  }
  return [...parts, current]
}

function pack(
  pieces: readonly string[],
  options: { readonly separator: string; readonly aim: number; readonly limit: number },
): readonly string[] {
  const packed: string[] = []
  let current: string | undefined
  for (const piece of pieces) {
    const joined: string = current === undefined ? piece : current + options.separator + piece
    const isFull = current !== undefined && (current.length >= options.aim || joined.length > options.limit)
    if (isFull && current !== undefined) packed.push(current)
    current = isFull ? piece : joined
  }
  return current === undefined ? packed : [...packed, current]
}
