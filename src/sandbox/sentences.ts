import type { Block } from './markdown-blocks.ts'
import { toBlocks } from './markdown-blocks.ts'

/** A sentence or compact list item, verbatim but for line breaks, which are single spaces. */
export interface Sentence {
  readonly text: string
  readonly kind: 'prose' | 'item'
  readonly headings: readonly string[]
  /** 0–1: how well it reads on its own. */
  readonly quality: number
}

const ABBREVIATIONS = new Set(
  `e.g i.e etc vs cf mr mrs ms dr prof st no nos fig figs eq sec ch vol ed eds al approx resp incl inc ltd co corp dept
  est jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s u.k ca viz op`.split(/\s+/u),
)

const LONGEST_ABBREVIATION = 20

/** These end on a full stop that usually ends the sentence too, when a capital follows. */
const MAY_END_SENTENCE = new Set(['etc', 'inc', 'ltd', 'co', 'corp', 'al', 'a.m', 'p.m'])

const ENDED = /[.!?…。！？][)\]"'”’*_`]*$/u

/** Nobody reads on; it also bounds the work of the patterns below. */
const MAX_CHARACTERS = 1500
const MAX_WORDS = 90
const LONG_WORDS = 45
const MIN_WORDS = { prose: 4, item: 3 } as const

/** Splits a text into the sentences fit to be quoted, in reading order. */
export function toSentences(text: string): readonly Sentence[] {
  const blocks = toBlocks(text)
  return blocks.flatMap((block, index) => {
    const isFirst = index === 0 && block.headings.length === 0
    return splitBlock(block).flatMap((sentence, position) => {
      const isFragment = isFirst && position === 0 && block.kind === 'prose' && /^[\p{Ll}),;]/u.test(sentence)
      // A passage may be cut out of a page: its last words need not be the end of their sentence.
      const mayBeCut = index === blocks.length - 1 && !ENDED.test(sentence)
      const quality = isFragment ? 0 : qualityOf(sentence, block.kind) * (mayBeCut ? 0.6 : 1)
      return quality === 0 ? [] : [{ text: sentence, kind: block.kind, headings: block.headings, quality }]
    })
  })
}

function splitBlock(block: Block): readonly string[] {
  const { text, seams } = block
  const inCode = codeSpans(text)
  const sentences: string[] = []
  let start = 0
  const push = (end: number): void => {
    const crossesSeam = seams.some((seam) => seam > start && seam < end - 1)
    if (!crossesSeam) sentences.push(text.slice(start, end).trim())
    start = end
  }
  for (const match of text.matchAll(/(?:[.!?…]+[)\]"'”’*_]*(?=\s)|[。！？]+[」』”]?)/gu)) {
    const end = match.index + match[0].length
    if (inCode(match.index) || !endsSentence(text, match.index, end)) continue
    push(end)
  }
  push(text.length)
  return sentences.filter((sentence) => sentence !== '')
}

function endsSentence(text: string, stop: number, end: number): boolean {
  const isFullStop = text[stop] === '.'
  const rest = text.slice(end).trimStart()
  if (/^[。！？]/u.test(text.slice(stop)) || rest === '') return true
  if (!/^["'“‘([*_`~<>ℹ⚠\p{Lu}\p{N}\p{Lo}]/u.test(rest)) return false
  if (!isFullStop) return true
  const word = (/(\S+)$/u.exec(text.slice(Math.max(0, stop - LONGEST_ABBREVIATION), stop))?.[1] ?? '').replace(
    /^[("'“‘*_]+/u,
    '',
  )
  const lower = word.toLowerCase()
  if (MAY_END_SENTENCE.has(lower)) return /^[\p{Lu}]/u.test(rest)
  return !ABBREVIATIONS.has(lower) && !/^\p{Lu}$/u.test(word)
}

/** Tells whether an offset lies inside a code span: `reply.send()` holds full stops that end nothing. */
function codeSpans(text: string): (offset: number) => boolean {
  const spans = [...text.matchAll(/(`+)[^`]+\1/gu)].map(
    (match) => [match.index, match.index + match[0].length] as const,
  )
  return (offset) => spans.some(([from, to]) => offset > from && offset < to)
}

/** 0 = not fit to be read on its own. */
function qualityOf(sentence: string, kind: 'prose' | 'item'): number {
  if (sentence.length > MAX_CHARACTERS) return 0
  const visible = visibleText(sentence)
  const words = visible.split(/\s+/u).filter((word) => /[\p{L}\p{N}]/u.test(word)).length
  const spaceless = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u.test(visible)
  if (words > MAX_WORDS || (words < MIN_WORDS[kind] && !spaceless)) return 0
  if (isCodeNoise(sentence) || isMostlyLink(sentence, kind)) return 0
  if (/<\/?(?:a|img|br|div|p|h\d|sub|sup|table|t[dhr]|details|summary|span|b|i|em)\b[^>]*>/iu.test(sentence)) return 0

  let quality = 1
  if (words > LONG_WORDS) quality *= 0.8
  if (kind === 'item') quality *= /^\*{0,2}!?\[/u.test(sentence) ? 0.5 : 0.9
  const isEnded = ENDED.test(sentence)
  if (kind === 'prose' && !isEnded) quality *= 0.5
  if (/:[*_]*$/u.test(sentence)) quality *= 0.35
  if (sentence.endsWith('?')) quality *= 0.3
  if (/^(?:see|refer to|read|check|check out|take a look|for more|for further|for details)\b/iu.test(visible))
    quality *= 0.3
  if (
    /\b(?:following|below|above) (?:example|code|snippet|table|list)\b|\bexamples? (?:below|above)\b|^(?:for example|example)\b/iu.test(
      visible,
    )
  ) {
    quality *= 0.5
  }
  if (
    /^(?:it|its|this|that|these|those|they|then|otherwise|however|therefore|thus|also|alternatively|where|but|and|so|here|in this case)\b/iu.test(
      visible,
    )
  ) {
    quality *= 0.8
  }
  const links = sentence.match(/\]\([^)]*\)/gu)?.length ?? 0
  return quality * 0.9 ** Math.min(links, 4)
}

/** Without the targets of links and the marks of Markdown. */
function visibleText(sentence: string): string {
  return sentence
    .replaceAll(/!\[[^\]]*\]\([^)]*\)/gu, ' ')
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/gu, '$1')
    .replaceAll(/[*_`~]/gu, '')
    .trim()
}

function isCodeNoise(sentence: string): boolean {
  const bare = sentence.replaceAll(/`[^`]*`/gu, '').replaceAll(/\]\([^)]*\)/gu, '')
  if (/=>|;\s*$|^\s*(?:const|let|var|import|export|return|await|npm|npx|\$)\s|^[}\])]/u.test(bare)) return true
  const symbols = bare.match(/[{}();=<>|\\/$]/gu)?.length ?? 0
  return symbols > 4 && symbols / Math.max(bare.length, 1) > 0.06
}

/** A row of a table of contents, a "read more" link. */
function isMostlyLink(sentence: string, kind: 'prose' | 'item'): boolean {
  if (!/\]\([^)]*\)|\]\[|https?:\/\//u.test(sentence)) return false
  const outside = sentence
    .replaceAll(/!?\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])/gu, ' ')
    .replaceAll(/https?:\/\/\S+/gu, ' ')
    .split(/\s+/u)
    .filter((word) => /\p{L}/u.test(word))
  return outside.length < (kind === 'item' ? 3 : 4)
}
