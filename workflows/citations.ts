import type { Citation } from '#contracts/tools.ts'
import { NOT_FOUND } from './research-prompts.ts'

export interface CitedAnswer {
  readonly answer: string
  /** Those that the answer uses, in the order of their numbers. */
  readonly citations: readonly Citation[]
}

/**
 * `[1]` and `[1, 2]`, with the space before, so that a dropped marker leaves none behind. Code spans are matched to be
 * left alone: an index is no citation.
 */
const MARKER = /(`+)[^`][\s\S]*?\1|\s*\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]/g

/** Keeps of an answer what the registry holds: markers that it does not know are dropped, unused citations too. */
export function citeAnswer(text: string, registry: readonly Citation[]): CitedAnswer {
  const known = new Map(registry.map((citation) => [citation.n, citation]))
  const used = new Set<Citation>()
  const answer = text.replaceAll(MARKER, (marker: string, _fence: string, list?: string) => {
    if (list === undefined) return marker
    const citations = list.split(/[,;]/).flatMap((number) => known.get(Number(number)) ?? [])
    for (const citation of citations) used.add(citation)
    const space = /^\s*/.exec(marker)?.[0] ?? ''
    return citations.length === 0 ? '' : space + citations.map(({ n }) => `[${n}]`).join('')
  })
  return { answer: answer.trim(), citations: [...used].toSorted((left, right) => left.n - right.n) }
}

/** Whether the writer said that the passages hold no answer: that, and perhaps a full stop or quotation marks. */
export function isNotFound(text: string): boolean {
  return (
    text
      .toUpperCase()
      .replaceAll(/[^A-Z ]/g, '')
      .trim() === NOT_FOUND
  )
}
