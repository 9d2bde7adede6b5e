import type { Passage } from './passages.ts'
import type { Conversation, Question } from './question.ts'
import type { Sentence } from './sentences.ts'
import type { Word } from './terms.ts'
import { toSentences } from './sentences.ts'
import { contentWords } from './terms.ts'

/** A sentence that supports an answer, and the passage that says it. */
export interface SupportingSentence {
  readonly text: string
  readonly kind: Sentence['kind']
  readonly passage: Passage
  readonly heading: string
  /** Its place in reading order among all sentences given. */
  readonly position: number
  /** 0–1: the share of the question's weight that the sentence covers. */
  readonly coverage: number
}

export interface Support {
  readonly isFound: boolean
  /** Best first; empty when nothing supports an answer. */
  readonly sentences: readonly SupportingSentence[]
  /** Stems of the question that the chosen sentences say nothing about. */
  readonly missingStems: ReadonlySet<string>
}

/** More sentences than this read like a list, not like an answer. */
export const MAX_SENTENCES = 6

/** Less than half of the weighted question is no answer to it. */
const MIN_COVERAGE = 0.5
/** When every name asked for is mentioned, a little less will do. */
const MIN_COVERAGE_WITH_NAMES = 0.4
const MIN_TERMS_WITH_NAMES = 3
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
/** Further sentences score at least this share of the best one. */
const MIN_SHARE_OF_BEST = 0.55
/** Two sentences that share more of their words than this say the same. */
const DUPLICATE_SHARE = 0.65
/** How many frequent words stand for the subject of a text about which nothing was asked. */
const SUBJECT_WORDS = 8

interface Candidate {
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

interface Scored extends Candidate {
  readonly coverage: number
  /** Stems of the question that the sentence or its surroundings hold. */
  readonly covered: ReadonlySet<string>
  /** Stems of the question that the sentence itself states. */
  readonly stated: ReadonlySet<string>
  readonly score: number
}

/** Finds the sentences that answer the question, or that stand for the text when nothing was asked. */
export function findSupport(conversation: Conversation): Support {
  const candidates = toCandidates(conversation.passages)
  const { question } = conversation
  if (question.words.length === 0) return summarise(candidates)

  const weights = weigh(question, candidates)
  const scored = candidates
    .map((candidate) => score(candidate, question, weights))
    .filter((candidate) => candidate.score > 0)
    .toSorted((left, right) => right.score - left.score || left.order - right.order)
  const chosen = choose(scored, weights)
  const covered = new Set(chosen.flatMap((candidate) => [...candidate.covered]))
  const isFound = chosen.length > 0 && isAnswered(question, covered, weights)
  return {
    isFound,
    sentences: isFound ? chosen.map(toSupportingSentence) : [],
    missingStems: new Set([...weights.keys()].filter((stem) => !isFound || !covered.has(stem))),
  }
}

function isAnswered(question: Question, covered: ReadonlySet<string>, weights: ReadonlyMap<string, number>): boolean {
  const share = shareOf(covered, weights)
  if (share >= MIN_COVERAGE) return true
  const namesCovered = question.words.every((word) => !isName(word, question) || covered.has(word.stems[0] ?? ''))
  return namesCovered && covered.size >= MIN_TERMS_WITH_NAMES && share >= MIN_COVERAGE_WITH_NAMES
}

function toCandidates(passages: readonly Passage[]): readonly Candidate[] {
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
function weigh(question: Question, candidates: readonly Candidate[]): ReadonlyMap<string, number> {
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
function isName(word: Word, question: Question): boolean {
  const opening = /[\p{L}\p{N}]+/u.exec(question.text)?.[0]
  return (word.surface === opening ? /.(?:\p{Lu}|\p{N}|_)/u : /\p{Lu}|\p{N}|_/u).test(word.surface)
}

function score(candidate: Candidate, question: Question, weights: ReadonlyMap<string, number>): Scored {
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
  const answered = question.parts
    .map((part) => part.map((word) => word.stems[0] ?? ''))
    .filter((part) => part.length > 1 && coverageOf(part) >= MIN_PART_COVERAGE && statedBy(part) >= 2)
  const minTerms = Math.min(2, weights.size)
  const minStated = weights.size > 3 ? minTerms : 1
  const isSupported =
    stems.some((stem) => candidate.own.has(stem)) &&
    covered.size >= minTerms &&
    statedBy(stems) >= minStated &&
    (coverage >= MIN_COVERAGE || answered.length > 0)
  if (!isSupported) return { ...candidate, coverage, covered, stated, score: 0 }

  const rankOf = (some: readonly string[]): number => coverageOf(some) * (0.8 + 0.4 * closeness(candidate, some))
  const rank = Math.max(rankOf(stems), ...answered.map((part) => PART_RANK * rankOf(part)))
  const opensWithSubject = candidate.sequence.slice(0, 2).some((word) => word.some((stem) => stated.has(stem)))
  return {
    ...candidate,
    coverage,
    covered,
    stated,
    score: rank * sentence.quality * (opensWithSubject ? SUBJECT_RANK : 1),
  }
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

/** Takes the best sentence, then those that add most to what was said, and none that repeats it. */
function choose(scored: readonly Scored[], weights: ReadonlyMap<string, number>): readonly Scored[] {
  const best = scored[0]
  if (best === undefined) return []
  const chosen: Scored[] = [best]
  const remaining = new Set(scored.slice(1, 60))
  while (chosen.length < MAX_SENTENCES && remaining.size > 0) {
    const said = new Set(chosen.flatMap((candidate) => [...candidate.stated]))
    const ranked = [...remaining]
      .filter((candidate) => !chosen.some((other) => isNearDuplicate(candidate.own, other.own)))
      .map((candidate) => {
        const fresh = new Set([...candidate.stated].filter((stem) => !said.has(stem)))
        return { candidate, gain: candidate.score * (0.7 + 0.3 * Math.min(1, 3 * shareOf(fresh, weights))) }
      })
      .toSorted((left, right) => right.gain - left.gain || left.candidate.order - right.candidate.order)
    const next = ranked[0]
    if (next === undefined || next.gain < best.score * MIN_SHARE_OF_BEST) break
    chosen.push(next.candidate)
    remaining.delete(next.candidate)
  }
  return chosen
}

function isNearDuplicate(left: ReadonlySet<string>, right: ReadonlySet<string>): boolean {
  const shared = [...left].filter((stem) => right.has(stem)).length
  return shared / Math.max(left.size + right.size - shared, 1) > DUPLICATE_SHARE
}

/** Nothing was asked: the sentences that hold most of the words the text uses most. */
function summarise(candidates: readonly Candidate[]): Support {
  const counts = new Map<string, number>()
  for (const stem of candidates.flatMap((candidate) => [...candidate.own]))
    counts.set(stem, (counts.get(stem) ?? 0) + 1)
  const weights = new Map([...counts].toSorted((left, right) => right[1] - left[1]).slice(0, SUBJECT_WORDS))
  const scored = candidates
    .map((candidate) => {
      const covered = new Set([...weights.keys()].filter((stem) => candidate.own.has(stem)))
      const coverage = shareOf(covered, weights)
      return { ...candidate, covered, stated: covered, coverage, score: coverage * candidate.sentence.quality }
    })
    .toSorted((left, right) => right.score - left.score || left.order - right.order)
  const sentences = choose(scored, weights).slice(0, 3).map(toSupportingSentence)
  return { isFound: sentences.length > 0, sentences, missingStems: new Set() }
}

function toSupportingSentence({ sentence, passage, order, coverage }: Scored): SupportingSentence {
  return {
    text: sentence.text,
    kind: sentence.kind,
    passage,
    heading: sentence.headings.at(-1) ?? '',
    position: order,
    coverage,
  }
}

function shareOf(stems: ReadonlySet<string>, weights: ReadonlyMap<string, number>): number {
  const total = sumOf([...weights.keys()], weights)
  return total === 0 ? 0 : sumOf([...stems], weights) / total
}

function sumOf(stems: readonly string[], weights: ReadonlyMap<string, number>): number {
  return stems.reduce((sum, stem) => sum + (weights.get(stem) ?? 0), 0)
}
