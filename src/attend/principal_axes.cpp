#include "attend/principal_axes.h"

#include <Eigen/Eigenvalues>

#include "base/error.h"

namespace fathom {

std::vector<float> principal_axes(std::span<const float> gram, int n, int rank) {
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::MatrixXd products = Eigen::Map<const Rows>(gram.data(), n, n).cast<double>();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(products);
  if (solver.info() != Eigen::Success)
    fail("low-rank keys: no eigenvectors found for a matrix of ", n, " x ", n,
         " key products; expected finite keys");
  std::vector<float> axes(static_cast<size_t>(n) * rank);
  // Eigenvalues come in increasing order.
  Eigen::Map<Rows>(axes.data(), n, rank) = solver.eigenvectors().rightCols(rank).rowwise().reverse().cast<float>();
  return axes;
}

}  // namespace fathom
