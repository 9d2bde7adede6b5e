import type { Citation } from '#contracts/tools.ts'
import { citeAnswer, isNotFound } from '#workflows/citations.ts'
import { describe, expect, test } from 'vitest'

const registry: readonly Citation[] = [1, 2, 3].map((n) => ({
  n,
  passageId: `passage-${n}`,
  source: `docs/${n}.md`,
  title: `Title ${n}`,
  quote: `Quote ${n}.`,
}))

function numbers(text: string): readonly number[] {
  return citeAnswer(text, registry).citations.map(({ n }) => n)
}

describe('an answer with citation markers', () => {
  test('keeps the citations it uses, each once, in the order of their numbers', () => {
    expect(numbers('It waits [3]. Then it ends [1][3].')).toEqual([1, 3])
  })

  test('may name several citations in one marker', () => {
    expect(citeAnswer('It waits [1, 3; 2].', registry).answer).toBe('It waits [1][3][2].')
  })

  test('loses the markers that the registry does not know, with the space before them', () => {
    expect(citeAnswer('It waits [9]. It ends [2, 7].', registry).answer).toBe('It waits. It ends [2].')
  })

  test('keeps indexes in code as they are', () => {
    const text = 'Use `args[1]` or\n```\nlist[9]\n``` there [2].'
    expect(citeAnswer(text, registry)).toMatchObject({ answer: text, citations: [{ n: 2 }] })
  })

  test('cites nothing when it names nothing', () => {
    expect(citeAnswer(' It waits. ', registry)).toEqual({ answer: 'It waits.', citations: [] })
  })
})

describe('the reply that there is no answer', () => {
  test.each(['NOT FOUND', 'Not found.', '"NOT FOUND"', '**NOT FOUND**\n'])('is recognised in %j', (text) => {
    expect(isNotFound(text)).toBe(true)
  })

  test.each(['A 404 says NOT FOUND to the client [1].', '', 'FOUND'])('is not seen in %j', (text) => {
    expect(isNotFound(text)).toBe(false)
  })
})
