import { splitDocument } from '#tools/passages.ts'
import { expect, test } from 'vitest'

/** Longer than any heading and tag that a passage repeats. */
const MAX_REPEATED = 400

test.each([
  ['a heading of spaces', `# a${' '.repeat(20_000)}b`],
  ['a heading of marks', `# a${'#'.repeat(20_000)}b`],
  ['open brackets', `x ${'['.repeat(64_000)}`],
  ['open images', '!['.repeat(32_000)],
  ['open links in images', '[![a]('.repeat(20_000)],
  ['open comments', '<!--'.repeat(32_000)],
  ['open tags', '<a '.repeat(32_000)],
  ['open fences', '```\n'.repeat(20_000)],
  ['a link with an open title', '[a](b "'.repeat(16_000)],
])('a document of %s is split without holding up anybody', (_what, text) => {
  expect(splitDocument({ source: 'a.md', text }).passages.length).toBeGreaterThanOrEqual(0)
})

test('what every passage repeats has a limit, whatever a document puts there', () => {
  const code = `\`\`\`${'x'.repeat(60_000)}\n${'a b c d e f g h\n'.repeat(300)}\`\`\`\n`
  const text = `# ${'heading '.repeat(8_000)}\n\n${code}\n\n${'prose and more prose. '.repeat(300)}`
  for (const passage of splitDocument({ source: 'a.md', text }).passages) {
    expect(passage.heading?.length ?? 0).toBeLessThanOrEqual(MAX_REPEATED)
    expect(passage.text.length).toBeLessThanOrEqual(1_200 + MAX_REPEATED)
  }
})
