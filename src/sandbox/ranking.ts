import type { Passage } from './passages.ts'
import type { Question } from './question.ts'
import { toSentences, type Sentence } from './sentences.ts'
import { contentWords, type Word } from './terms.ts'

/** Less than half of the weighted question is no answer to it. */
export const MIN_COVERAGE = 0.5

/** A sentence may instead answer one part of the question, but then nearly all of that part. */
const MIN_PART_COVERAGE = 0.66
/** What headings, title and file name say about a sentence counts less than what it says itself. */
const CONTEXT_WEIGHT = 0.6
/** A list item belongs to the heading right above it. */
const HEADING_WEIGHT = 0.8
/** What answers one part of a question ranks behind what answers all of it. */
const PART_RANK = 0.85
/** Among two or three sentences a word that all of them hold is not yet a common one. */
const PRIOR_SENTENCES = 3
/** A sentence that opens with what was asked about is more often the one that explains it. */
const SUBJECT_RANK = 1.08
/** Words that nearly every sentence holds still name the subject: they keep this share of the greatest rarity. */
const MIN_RARITY_SHARE = 0.3
/** Names (capitals, identifiers, digits) tell subjects apart; a name that nothing mentions must weigh. */
const NAME_WEIGHT = 1.5

export interface Candidate {
  readonly sentence: Sentence
  readonly passage: Passage
  readonly order: number
  readonly sequence: readonly (readonly string[])[]
  /** Stems of the sentence itself. */
  readonly own: ReadonlySet<string>
  /** Stems of the heading right above. */
  readonly heading: ReadonlySet<string>
  /** Stems of all headings, the title and the file name. */
  readonly context: ReadonlySet<string>
}

export interface Scored extends Candidate {
  readonly coverage: number
  /** Stems of the question that the sentence or its surroundings hold. */
  readonly covered: ReadonlySet<string>
  /** Stems of the question that the sentence itself states. */
  readonly stated: ReadonlySet<string>
  readonly score: number
  /** The same for each part of the question, 0 for a part that the sentence does not answer. */
  readonly partScores: readonly number[]
}

export function toCandidates(passages: readonly Passage[]): readonly Candidate[] {
  let order = 0
  return passages.flatMap((passage) => {
    const about = stemsIn(`${passage.title} ${passage.source.replaceAll(/[/\\._-]+/gu, ' ')}`)
    return toSentences(passage.text).map((sentence) => {
      order += 1
      const sequence = contentWords(sentence.text).map((word) => word.stems)
      const headings = stemsIn(sentence.headings.join(' '))
      const own = new Set(sequence.flat())
      const heading = new Set(stemsIn(sentence.headings.at(-1) ?? ''))
      return { sentence, passage, order, sequence, own, heading, context: new Set([...about, ...headings]) }
    })
  })
}

function stemsIn(text: string): readonly string[] {
  return contentWords(text).flatMap((word) => word.stems)
}

/** The rarer a term among the sentences given, the more it says which of them is meant. */
export function weigh(question: Question, candidates: readonly Candidate[]): ReadonlyMap<string, number> {
  const rarityOf = (holders: number): number => Math.log(1 + (candidates.length + PRIOR_SENTENCES) / (holders + 0.5))
  return new Map(
    question.words.map((word) => {
      const stem = word.stems[0] ?? ''
      const holders = candidates.filter((candidate) => candidate.own.has(stem) || candidate.context.has(stem)).length
      const rarity = Math.max(rarityOf(holders), MIN_RARITY_SHARE * rarityOf(0))
      return [stem, rarity * (isName(word, question) ? NAME_WEIGHT : 1)]
    }),
  )
}

/** A capital, digit or underscore marks a name, unless it is only the capital that opens the question. */
export function isName(word: Word, question: Question): boolean {
  const opening = /[\p{L}\p{N}]+/u.exec(question.text)?.[0]
  return (word.surface === opening ? /.(?:\p{Lu}|\p{N}|_)/u : /\p{Lu}|\p{N}|_/u).test(word.surface)
}

export function score(candidate: Candidate, question: Question, weights: ReadonlyMap<string, number>): Scored {
  const { sentence } = candidate
  const shareFor = (stem: string): number => {
    if (candidate.own.has(stem)) return 1
    if (sentence.kind === 'item' && candidate.heading.has(stem)) return HEADING_WEIGHT
    return candidate.context.has(stem) ? CONTEXT_WEIGHT : 0
  }
  const weightOf = (stems: readonly string[]): number =>
    stems.reduce((sum, stem) => sum + shareFor(stem) * (weights.get(stem) ?? 0), 0)
  const coverageOf = (stems: readonly string[]): number =>
    weightOf(stems) / Math.max(sumOf(stems, weights), Number.EPSILON)

  const stems = [...weights.keys()]
  const covered = new Set(stems.filter((stem) => shareFor(stem) > 0))
  // A compact item such as "Default: 1 MiB" leaves its subject to the heading right above it.
  const isStated = (stem: string): boolean => shareFor(stem) >= HEADING_WEIGHT
  const statedBy = (some: readonly string[]): number => some.filter(isStated).length
  const stated = new Set(stems.filter(isStated))
  const coverage = coverageOf(stems)
  const rankOf = (some: readonly string[]): number => coverageOf(some) * (0.8 + 0.4 * closeness(candidate, some))
  const answers = (part: readonly string[]): boolean => coverageOf(part) >= MIN_PART_COVERAGE && statedBy(part) >= 2
  const partRanks = partsOf(question).map((part) => (answers(part) ? PART_RANK * rankOf(part) : 0))
  const bestPartRank = Math.max(0, ...partRanks)
  const minTerms = Math.min(2, weights.size)
  const minStated = weights.size > 3 ? minTerms : 1
  const isSupported =
    stems.some((stem) => candidate.own.has(stem)) &&
    covered.size >= minTerms &&
    statedBy(stems) >= minStated &&
    (coverage >= MIN_COVERAGE || bestPartRank > 0)
  if (!isSupported) return { ...candidate, coverage, covered, stated, score: 0, partScores: [] }

  const opensWithSubject = candidate.sequence.slice(0, 2).some((word) => word.some((stem) => stated.has(stem)))
  const fitness = sentence.quality * (opensWithSubject ? SUBJECT_RANK : 1)
  return {
    ...candidate,
    coverage,
    covered,
    stated,
    score: Math.max(rankOf(stems), bestPartRank) * fitness,
    partScores: partRanks.map((rank) => rank * fitness),
  }
}

/** The parts that say enough to be answered by themselves, when there are several. */
function partsOf(question: Question): readonly (readonly string[])[] {
  return question.parts.filter((part) => part.length > 1).map((part) => part.map((word) => word.stems[0] ?? ''))
}

/** 0–1: how many of the words that stand side by side in the question do so in the sentence too. */
function closeness(candidate: Candidate, stems: readonly string[]): number {
  const pairs = stems.slice(0, -1).map((stem, index) => [stem, stems[index + 1] ?? ''] as const)
  const close = pairs.filter(([here, next]) =>
    candidate.sequence.some(
      (word, at) =>
        word.includes(here) &&
        candidate.sequence.slice(Math.max(at - 1, 0), at + 3).some((near) => near.includes(next)),
    ),
  )
  return pairs.length === 0 ? 1 : close.length / pairs.length
}

export function shareOf(stems: ReadonlySet<string>, weights: ReadonlyMap<string, number>): number {
  const total = sumOf([...weights.keys()], weights)
  return total === 0 ? 0 : sumOf([...stems], weights) / total
}

function sumOf(stems: readonly string[], weights: ReadonlyMap<string, number>): number {
  return stems.reduce((sum, stem) => sum + (weights.get(stem) ?? 0), 0)
}
