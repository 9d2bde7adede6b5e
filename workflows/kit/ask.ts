import type { QuestionRequest } from '#contracts/activities.ts'
import { invariant } from '#domain/invariant.ts'
import type { RunControl } from './run-control.ts'
import { askOwner as ask } from './ports.ts'

export interface Question {
  /** What the owner reads: at most 2,000 characters. */
  readonly question: string
  /** What may be answered; anything when left out. */
  readonly choices?: readonly string[]
  /** How long the run waits, in seconds; as long as it may be paused when left out. */
  readonly waitSeconds?: number
  /** The answer when nobody answers in time. Left out: the run then ends as partial. */
  readonly otherwise?: string
}

/** Pauses for input until the owner has answered. */
export async function askOwner(
  control: RunControl,
  path: string,
  { waitSeconds, otherwise, ...question }: Question,
): Promise<string> {
  invariant(question.choices?.length !== 0, 'a question with choices has at least one')
  const limitMs = waitSeconds === undefined ? (control.rules?.pauseDeadlineMs ?? 0) : waitSeconds * 1_000
  const request = { runId: control.runId, path, ...question }
  const answerTo = async (asked: QuestionRequest): Promise<string | undefined> => {
    const { answer, isEnding } = await ask(asked)
    if (answer !== undefined || !isEnding) return answer
    if (otherwise !== undefined) return otherwise
    throw control.end({ state: 'cancelled', reason: 'cancelled', detail: 'The run was told to stop: nobody is asked.' })
  }
  for (;;) {
    const told = await control.untilTold(() => answerTo(request), limitMs)
    if (told !== undefined) return told
    if (otherwise !== undefined) {
      const answer = await answerTo({ ...request, otherwise })
      if (answer !== undefined) return answer
    }
    await control.expirePause(`Nobody answered in time: ${question.question}`)
  }
}
