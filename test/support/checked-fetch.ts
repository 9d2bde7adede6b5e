import type { AnswerChecker } from './openapi.ts'

/** A `fetch` whose answers are compared with the OpenAPI document. */
export interface CheckedFetch {
  readonly fetch: typeof globalThis.fetch
  /** Once all answers are over. @throws for the first that the document does not describe */
  done(): Promise<void>
}

export function checkedFetch(isDescribed: AnswerChecker): CheckedFetch {
  const checks: Promise<void>[] = []

  async function checkAnswer(request: Request, answer: Response): Promise<void> {
    // A client that leaves a stream has no whole answer.
    const text = await answer.text().catch(() => undefined)
    if (text === undefined) return
    const type = answer.headers.get('content-type') ?? undefined
    const { pathname } = new URL(request.url)
    const body: unknown = type?.startsWith('application/json') ? JSON.parse(text) : text
    isDescribed({ method: request.method, path: pathname, status: answer.status, type, body })
  }

  return {
    async fetch(input, init) {
      const answer = await fetch(input, init)
      const check = checkAnswer(new Request(answer.url, { method: init?.method ?? 'GET' }), answer.clone())
      check.catch(() => {}) // `done` tells it
      checks.push(check)
      return answer
    },
    async done() {
      const [failed] = (await Promise.allSettled(checks)).filter(({ status }) => status === 'rejected')
      if (failed?.status === 'rejected') throw failed.reason
    },
  }
}
