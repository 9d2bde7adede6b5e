import type { ExitStatus } from './child-process.ts'

/** Tells of the first process that ends although nobody has stopped it here. */
export class Watch {
  readonly #end = Promise.withResolvers<string>()
  #isOver = false

  /** Settles when a process has ended by itself, with a sentence that says which, and where its log is. */
  get unexpectedEnd(): Promise<string> {
    return this.#end.promise
  }

  keep(name: string, process: { readonly exited: Promise<ExitStatus> }, logFile: string): void {
    void process.exited.then(({ code, signal }) => {
      if (this.#isOver) return
      this.#end.resolve(`The ${name} process ended (${signal ?? `code ${code}`}). Its log is ${logFile}.`)
    })
  }

  /** What ends from now on is meant to. */
  stop(): void {
    this.#isOver = true
  }
}
