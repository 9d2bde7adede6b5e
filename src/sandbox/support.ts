import type { Passage } from './passages.ts'
import type { Conversation, Question } from './question.ts'
import { MIN_COVERAGE, type Candidate, type Scored, isName, score, shareOf, toCandidates, weigh } from './ranking.ts'
import type { Sentence } from './sentences.ts'

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

/** When every name asked for is mentioned, a little less will do. */
const MIN_COVERAGE_WITH_NAMES = 0.4
const MIN_TERMS_WITH_NAMES = 3
/** Further sentences score at least this share of the best one. */
const MIN_SHARE_OF_BEST = 0.55
/** Sentences that are compared with each other; those behind them support too little to be chosen. */
const MOST_CANDIDATES = 60
/** Two sentences that share more of their words than this say the same. */
const DUPLICATE_SHARE = 0.75
/** How many frequent words stand for the subject of a text about which nothing was asked. */
const SUBJECT_WORDS = 8

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

/** Takes the best sentence, of a question in several parts the best for each, then those that add most to what was said, and none that repeats it. */
function choose(scored: readonly Scored[], weights: ReadonlyMap<string, number>): readonly Scored[] {
  const best = scored[0]
  if (best === undefined) return []
  const firsts = bestForParts(scored)
  const chosen = firsts.length > 1 ? [...firsts] : [best]
  const remaining = new Set(scored.slice(0, MOST_CANDIDATES).filter((candidate) => !chosen.includes(candidate)))
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

function bestForParts(scored: readonly Scored[]): readonly Scored[] {
  const parts = scored[0]?.partScores.length ?? 0
  const firsts = Array.from({ length: parts }, (_, part) =>
    scored.reduce<Scored | null>((best, candidate) => {
      const partScore = candidate.partScores[part] ?? 0
      return partScore > (best?.partScores[part] ?? 0) ? candidate : best
    }, null),
  )
  return [...new Set(firsts)].filter((candidate) => candidate !== null)
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
      return {
        ...candidate,
        covered,
        stated: covered,
        coverage,
        score: coverage * candidate.sentence.quality,
        partScores: [],
      }
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
