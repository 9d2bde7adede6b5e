import type { components } from './schema.ts'

export type ProblemBody = components['schemas']['Problem']

/** The API refused, and says why, and what to do about it. */
export class ApiProblem extends Error {
  override readonly name = 'ApiProblem'
  readonly status: number
  readonly problem: ProblemBody

  constructor(status: number, problem: ProblemBody) {
    const { detail, remedy } = problem
    const isSentence = /[.!?]$/.test(detail)
    super(remedy === undefined ? detail : `${detail}${isSentence ? '' : '.'} ${remedy}`)
    this.status = status
    this.problem = problem
  }
}

/** Undefined when an answer is none of the API: a proxy's, or of something else at this address. */
export function problemOf(status: number, text: string): ApiProblem | undefined {
  try {
    const body: unknown = JSON.parse(text)
    return isProblem(body) ? new ApiProblem(status, body) : undefined
  } catch {
    return undefined
  }
}

function isProblem(body: unknown): body is ProblemBody {
  return (
    typeof body === 'object' && body !== null && 'code' in body && 'detail' in body && typeof body.detail === 'string'
  )
}
