import { z } from 'zod'
import type { Screen } from './screen.ts'
import { wrapText } from './text-table.ts'

const outputSchema = z.object({
  found: z.boolean(),
  answer: z.string().nullable(),
  citations: z.array(
    z.object({ n: z.int(), passageId: z.string(), source: z.string(), title: z.string(), quote: z.string() }),
  ),
  gaps: z.array(z.string()),
  partial: z.boolean().optional(),
})

/** What a research run delivers. */
export type ResearchOutput = z.infer<typeof outputSchema>

export function readOutput(output: unknown): ResearchOutput | undefined {
  const parsed = outputSchema.safeParse(output)
  return parsed.success ? parsed.data : undefined
}

const INDENT = '  '
const MAX_QUOTE_LENGTH = 240
const MAX_SHOWN = 8

/** Prints an answer with its citations, or as much as a stopped run has; the output of another agent as it is. */
export function printOutput(screen: Screen, output: unknown): void {
  if (output === null || output === undefined) {
    screen.line(`${INDENT}Nothing was delivered yet.`)
    return
  }
  const research = readOutput(output)
  if (!research) {
    screen.line(JSON.stringify(output, undefined, 2))
    return
  }
  const { answer, citations, gaps } = printable(research)
  if (answer !== null) screen.line(wrapText(answer, { width: screen.width, indent: INDENT }))
  else if (citations.length > 0) screen.line(`${INDENT}No answer was written. Found until then:`)
  else screen.line(`${INDENT}No answer was written, and nothing found until then.`)
  if (citations.length > 0) screen.line()
  for (const { n, source, quote } of citations.slice(0, MAX_SHOWN)) {
    screen.line(`${INDENT}${screen.paint('bold', `[${n}]`)} ${screen.paint('cyan', source)}`)
    screen.line(screen.paint('dim', wrapText(`“${shorten(quote)}”`, { width: screen.width, indent: `${INDENT}    ` })))
  }
  if (citations.length > MAX_SHOWN) screen.line(`${INDENT}… and ${citations.length - MAX_SHOWN} more`)
  for (const gap of gaps) screen.line(screen.paint('yellow', `${INDENT}gap: ${gap}`))
}

/** Documents may hold control characters, which a terminal obeys. */
const CONTROL = /[^\P{Cc}\n\t]/gu

function printable(output: ResearchOutput): ResearchOutput {
  const clean = (text: string) => text.replaceAll(CONTROL, '\uFFFD')
  return {
    ...output,
    answer: output.answer === null ? null : clean(output.answer),
    gaps: output.gaps.map(clean),
    citations: output.citations.map((each) => ({ ...each, source: clean(each.source), quote: clean(each.quote) })),
  }
}

function shorten(quote: string): string {
  const flat = quote.replaceAll(/\s+/g, ' ').trim()
  return flat.length <= MAX_QUOTE_LENGTH ? flat : `${flat.slice(0, MAX_QUOTE_LENGTH)}…`
}
