import { randomBytes, randomInt } from 'node:crypto'

/** Facts that nobody can know but from the corpus they are put into. */
export function inventFacts() {
  const name = `Q${randomBytes(3).toString('hex')}`
  const year = String(randomInt(1500, 1900))
  return {
    year,
    question: `When was the harbour of ${name} dredged, and how many arches has the bridge of ${name}?`,
    facts: [
      { source: 'harbour.md', text: `The harbour of ${name} was dredged in ${year} by the engineer Mira Tandel.` },
      { source: 'bridge.md', text: `The bridge of ${name} has seven arches and was paid for by the millers.` },
      { source: 'market.md', text: 'A market is held on Thursdays, when the tide allows boats to land.' },
    ],
  } as const
}
