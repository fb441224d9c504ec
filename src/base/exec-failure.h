/*
 * What a command that can't be run comes to, in the words of shells (POSIX, Shell Command Language
 * 2.8.2).
 */
#pragma once

#define EXEC_FAILURE_NOT_EXECUTABLE 126
#define EXEC_FAILURE_NOT_FOUND      127
#define EXEC_FAILURE_ERROR_SIZE     512

/*
 * The exit status for error, the negative errno with which command could not be started: not found,
 * not executable, or EXIT_FAILURE where the command is not to blame. text (EXEC_FAILURE_ERROR_SIZE
 * bytes) says what to do. Looks at PATH and the files there.
 */
int exec_failure_explain(const char *command, int error, char *text);
