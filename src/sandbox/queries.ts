import type { Question } from './question.ts'
import { contentWords, type Word } from './terms.ts'

const MAX_WORDS_PER_QUERY = 10

/**
 * Search queries for a question, broadest first: all its content words, the words of each of its parts, then single
 * terms, names and long words before short ones.
 */
export function toQueries(question: Question): readonly string[] {
  const parts = question.parts.filter((part) => part.length > 1).map(toQuery)
  const singles = question.words.toSorted((left, right) => weightOf(right) - weightOf(left)).map((word) => word.surface)
  return distinctText([
    toQuery(contentWords(question.text)),
    ...parts,
    ...neighbours(question),
    ...singles,
    question.text,
  ])
}

/** Queries for what a first reading left open. */
export function toFollowUpQueries(question: Question, missingStems: ReadonlySet<string>): readonly string[] {
  const open = (words: readonly Word[]): readonly Word[] =>
    words.filter((word) => missingStems.has(word.stems[0] ?? ''))
  if (open(question.words).length === 0) return []
  const parts = question.parts.filter((part) => open(part).length > 0).map(toQuery)
  return distinctText([...parts, toQuery(open(question.words)), ...open(question.words).map((word) => word.surface)])
}

/** Pairs of words that stand side by side in one part: "request bodies". */
function neighbours(question: Question): readonly string[] {
  return question.parts
    .filter((part) => part.length > 2)
    .flatMap((part) => part.slice(0, -1).map((word, index) => `${word.surface} ${part[index + 1]?.surface ?? ''}`))
    .toSorted((left, right) => right.length - left.length)
}

function toQuery(words: readonly Word[]): string {
  return distinctText(words.map((word) => word.surface))
    .slice(0, MAX_WORDS_PER_QUERY)
    .join(' ')
}

/** Names and identifiers say most, then long words. */
function weightOf(word: Word): number {
  return word.surface.length + (/\p{Lu}|\p{N}|_/u.test(word.surface) ? 100 : 0)
}

function distinctText(texts: readonly string[]): readonly string[] {
  const byKey = new Map<string, string>()
  for (const text of texts.map((each) => each.trim())) {
    const key = text.toLowerCase()
    if (key !== '' && !byKey.has(key)) byKey.set(key, text)
  }
  return [...byKey.values()]
}
